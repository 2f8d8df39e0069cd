"""What a run is: every setting, its default, its limits and its description.

`command_line` makes one flag of each field, so a setting is described here and
nowhere else.
"""

import dataclasses
import json
import math
import pathlib

DEPTHS = (18, 34, 50, 101, 152, 200)
MODES = ("pretrain", "evaluate", "export", "preview", "convert")
PROTOCOLS = (
    "knn",
    "linear",
    "linear_sweep",
    "linear_cached",
    "semi_supervised",
    "finetune",
    "transfer",
    "transfer_finetune",
)
DENSE_PROTOCOLS = ("segmentation", "detection", "depth")

# epochs -> (base learning rate, weight decay, tau_base); the official
# `byol/configs/byol.py`.
PRESETS = {
    40: (0.45, 1e-6, 0.97),
    100: (0.45, 1e-6, 0.99),
    300: (0.3, 1e-6, 0.99),
    1000: (0.2, 1.5e-6, 0.996),
}


# The settings that a checkpoint of the official release decides.
ARCHITECTURE = (
    "encoder_depth",
    "encoder_blocks",
    "encoder_channels",
    "encoder_group_strides",
    "encoder_bottleneck",
    "stem",
    "stem_channels",
    "encoder_width",
    "projector_hidden",
    "projection_size",
)

# Lists of what is measured, or chosen from.
NOT_EMPTY = (
    "knn_neighbours",
    "label_fractions",
    "finetune_epochs",
    "finetune_rates",
    "transfer_rates",
    "transfer_weight_decays",
)

# Sizes that are as published unless a flag, or a checkpoint, says otherwise.
PUBLISHED_SIZES = {
    "stem_channels": 64,
    "encoder_width": 1,
    "projector_hidden": 4096,
    "projection_size": 256,
}


class ConfigError(ValueError):
    """A setting that cannot work; the message names the flag to change."""


def setting(default, description: str, *, group: str, run: bool = True, **kind):
    """A field of `Config`.

    Args:
      default: its value if no flag is given; None where it depends on others.
      description: one or two sentences with the unit.
      group: heading under which `--help` lists it.
      run: whether a run with another value is another run. If so, a run folder
        keeps to its value.
      **kind: `type` of the flag's value (by default that of `default`), or
        `choices` among strings; `low` and `high`, inclusive limits.
    """
    metadata = {"description": description, "group": group, "run": run, **kind}
    metadata.setdefault("type", type(default))
    return dataclasses.field(default=default, metadata=metadata)


JOB = "Job"
DATA = "Data"
ENCODER = "Encoder"
METHOD = "Method and optimizer (arXiv 2006.07733, section 3)"
ABLATION = "What BYOL is without (arXiv 2006.07733, section 5; 2010.10241)"
AUGMENTATION = "Augmentation (arXiv 2006.07733, appendix B)"
EVALUATION = "Evaluation by --protocols (arXiv 2006.07733, section 4)"
DENSE = "Dense tasks by --protocols (arXiv 2006.07733, section 4.2)"
DEVICES = "Devices and precision"
MONITORING = "While it runs"


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of a run. Raises ConfigError for one that cannot work."""

    mode: str = setting(
        "pretrain",
        "pretrain: learn an encoder, then evaluate and export it. evaluate: "
        "how good is the encoder of --run_dir, or --encoder? export: write it "
        "as a SavedModel. preview: draw a sheet of augmented views. convert: "
        "make a run folder of a checkpoint of the official release.",
        group=JOB,
        run=False,
        choices=MODES,
    )
    profile_input: bool = setting(
        False,
        "Do not train, but measure for a minute whether the input or the model "
        "limits the run, and say which flag to turn.",
        group=JOB,
        run=False,
    )
    run_dir: str = setting(
        "runs/byol",
        "Folder for all results. A run that was interrupted goes on from its "
        "last checkpoint there.",
        group=JOB,
        run=False,
    )
    encoder: str = setting(
        "",
        "For evaluate and export: a run folder or an encoder.keras file to "
        "take the encoder from. By default --run_dir's.",
        group=JOB,
        run=False,
    )
    deepmind_checkpoint: str = setting(
        "",
        "For convert: a pretraining checkpoint of the official release, e.g. "
        "pretrain_res50x1.pkl. What it holds decides the encoder's flags.",
        group=JOB,
    )
    baselines: bool = setting(
        True,
        "Evaluate the same encoder before its training, and raw pixels, as "
        "well. Of large images that takes long.",
        group=JOB,
        run=False,
    )
    seed: int = setting(
        0,
        "Of the initialisation, the order of the images and the augmentation.",
        group=JOB,
        low=0,
        high=2**31 - 1,
    )
    deterministic: bool = setting(
        False,
        "Give the same numbers at every run with the same seed, bit for bit, "
        "at some cost in speed.",
        group=JOB,
    )

    dataset: str = setting(
        "bundled",
        "bundled: 10,000 + 2,000 images of Fashion-MNIST. folder:PATH: images "
        "in PATH, a sub-folder a class, or train/ and test/ with such "
        "sub-folders, or any tree of images without classes. npz:PATH: arrays "
        "of images, and of labels. tfrecord:GLOB: files of tf.train.Example. "
        "tfds:NAME[:VERSION]: a TensorFlow Datasets name.",
        group=DATA,
    )
    data_dir: str = setting(
        "",
        "Where TensorFlow Datasets are kept. By default ~/tensorflow_datasets.",
        group=DATA,
        run=False,
    )
    download: bool = setting(
        False,
        "Download and prepare a TFDS data set that is not in --data_dir.",
        group=DATA,
        run=False,
    )
    train_split: str = setting(
        "train",
        "TFDS split to pretrain on, e.g. train or train[:90%].",
        group=DATA,
    )
    test_split: str = setting(
        "",
        "TFDS split to evaluate on. By default test, or else validation.",
        group=DATA,
    )
    tfrecord_image: str = setting(
        "image/encoded",
        "Feature that holds the bytes of an image file, in tfrecord:GLOB.",
        group=DATA,
    )
    tfrecord_label: str = setting(
        "image/class/label",
        "Feature that holds the number of the class, in tfrecord:GLOB.",
        group=DATA,
    )
    tfrecord_classes: int = setting(
        0,
        "Number of classes in tfrecord:GLOB; labels are below it. 0: labels "
        "are not used.",
        group=DATA,
        low=0,
    )
    tfrecord_test: str = setting(
        "",
        "Files to evaluate on, e.g. PATH/validation-*, for tfrecord:GLOB.",
        group=DATA,
    )
    max_corrupt_fraction: float = setting(
        0.01,
        "Share of images that may be damaged. They are passed over, counted "
        "and listed in skipped.txt; more of them stop the run.",
        group=DATA,
        run=False,
        low=0,
        high=1,
    )
    in_memory_gb: float = setting(
        1.0,
        "Images of one size are decoded once and kept in memory, if they take "
        "no more GiB than this.",
        group=DATA,
        low=0,
    )
    cache_dir: str = setting(
        "",
        "Where it is kept which files a folder holds, and of what size, so "
        "that a large one opens fast. By default ~/.cache/byol_tf.",
        group=DATA,
        run=False,
    )
    parallel_calls: int | None = setting(
        None,
        "Images that are read, decoded and cropped at once. By default one for "
        "each core. The batches do not depend on it.",
        group=DATA,
        run=False,
        type=int,
        low=1,
    )
    data_service: str = setting(
        "",
        "HOST:PORT of the dispatcher of a tf.data service, whose workers read "
        "and crop the images; see `python -m byol_tf.data_server --help`. The "
        "batches do not depend on it.",
        group=DATA,
        run=False,
    )
    image_size: int | None = setting(
        None,
        "Height and width of the views, in pixels. By default that of the "
        "images if they all have one size, else 224.",
        group=DATA,
        type=int,
        low=4,
    )
    eval_crop: float | None = setting(
        None,
        "Share of an image's shorter side that is kept, in the centre, to "
        "compute features. By default 1 if the images have --image_size, "
        "else 0.875.",
        group=DATA,
        type=float,
        low=0.1,
        high=1,
    )
    upscale_small_images: bool = setting(
        False,
        "Accept images with a side below --image_size.",
        group=DATA,
    )

    encoder_depth: int | None = setting(
        None,
        "ResNet-18, 34, 50, 101, 152 or 200. By default 50. Wins over the "
        "next five flags, which describe any other ResNet.",
        group=ENCODER,
        type=int,
    )
    encoder_blocks: tuple[int, ...] = setting(
        (),
        "Blocks in each group, e.g. 1,1,1.",
        group=ENCODER,
        type=int,
        low=1,
    )
    encoder_channels: tuple[int, ...] = setting(
        (),
        "Output channels of each group, e.g. 32,64,128.",
        group=ENCODER,
        type=int,
        low=1,
    )
    encoder_group_strides: tuple[int, ...] = setting(
        (),
        "Stride of each group. By default 1,2,2,…",
        group=ENCODER,
        type=int,
        low=1,
    )
    encoder_bottleneck: bool = setting(
        False,
        "Bottleneck blocks in place of basic ones.",
        group=ENCODER,
    )
    stem_channels: int | None = setting(
        None,
        "Output channels of the stem. By default 64.",
        group=ENCODER,
        type=int,
        low=1,
    )
    encoder_width: int | None = setting(
        None,
        "Factor on all channels. By default 1.",
        group=ENCODER,
        type=int,
        low=1,
    )
    stem: str = setting(
        "imagenet",
        "imagenet: 7x7 convolution of stride 2 and max-pooling. cifar: 3x3 of "
        "stride 1, for images of about 32 pixels.",
        group=ENCODER,
        choices=("imagenet", "cifar"),
    )
    zero_init_gamma: bool = setting(
        False,
        "Let bottleneck branches start at zero. More stable; the paper's "
        "results were obtained without.",
        group=ENCODER,
    )
    recompute: bool = setting(
        False,
        "Compute the activations inside residual blocks a second time for the "
        "gradient in place of keeping them: much less memory, a quarter "
        "more arithmetic.",
        group=ENCODER,
        run=False,
    )

    batch_size: int = setting(
        256,
        "Images in an optimizer step, over all devices.",
        group=METHOD,
        low=2,
    )
    epochs: int = setting(
        100,
        "Passes over the training images. With 40, 100, 300 or 1000 the next "
        "three flags default to the published values.",
        group=METHOD,
        low=1,
    )
    base_learning_rate: float | None = setting(
        None,
        "Peak LARS learning rate for a batch of 256; it is multiplied by "
        "--batch_size / 256.",
        group=METHOD,
        type=float,
        low=0,
    )
    weight_decay: float | None = setting(
        None,
        "l2 penalty on kernels.",
        group=METHOD,
        type=float,
        low=0,
    )
    tau_base: float | None = setting(
        None,
        "Decay rate of the target's moving average at the first step.",
        group=METHOD,
        type=float,
        low=0,
        high=1,
    )
    tau_schedule: str = setting(
        "cosine",
        "cosine: the decay rate rises to 1 by a cosine, as published. "
        "constant: it stays. warmup: it goes to --tau_end in a straight line.",
        group=METHOD,
        choices=("cosine", "constant", "warmup"),
    )
    tau_end: float = setting(
        0.999,
        "Where --tau_schedule=warmup ends.",
        group=METHOD,
        low=0,
        high=1,
    )
    tau_warmup_steps: int = setting(
        1000,
        "After how many optimizer steps it ends there.",
        group=METHOD,
        low=1,
    )
    steps: int | None = setting(
        None,
        "Optimizer steps; overrides --epochs as the length of the run.",
        group=METHOD,
        type=int,
        low=1,
    )
    warmup_epochs: float = setting(
        10.0,
        "Linear warm-up of the learning rate, in epochs; at most the run.",
        group=METHOD,
        low=0,
    )
    projector_hidden: int | None = setting(
        None,
        "Hidden length of projector and predictor. By default 4096.",
        group=METHOD,
        type=int,
        low=1,
    )
    projection_size: int | None = setting(
        None,
        "Length of projections and predictions. By default 256.",
        group=METHOD,
        type=int,
        low=1,
    )
    predictor: str = setting(
        "mlp",
        "mlp: as published. none: the projections have to agree themselves. "
        "optimal_linear: the least-squares solution of each batch.",
        group=ABLATION,
        choices=("mlp", "none", "optimal_linear"),
    )
    predictor_rate: float = setting(
        1.0,
        "Factor on the learning rate of the predictor.",
        group=ABLATION,
        low=0,
    )
    target: str = setting(
        "moving_average",
        "moving_average: the target network, as published. online: the online "
        "network's own projections, through which gradient flows, as in "
        "SimCLR.",
        group=ABLATION,
        choices=("moving_average", "online"),
    )
    negatives_weight: float = setting(
        0.0,
        "beta, the weight of the other images of the batch as negatives. With "
        "1, --predictor=none and --target=online the loss is SimCLR's.",
        group=ABLATION,
        low=0,
    )
    temperature: float = setting(
        0.1,
        "alpha, by which cosines are divided where there are negatives.",
        group=ABLATION,
        low=0.001,
    )
    normalization: str = setting(
        "batch",
        "Everywhere in the networks. batch: as published. group: 16 groups of "
        "channels, and standardised kernels. none: a scale and an offset "
        "alone. calibrated: these, so initialised that they normalise the "
        "first batch.",
        group=ABLATION,
        choices=("batch", "group", "none", "calibrated"),
    )

    crop_min_area: float = setting(
        0.08,
        "Least area of a crop, as a share of the image.",
        group=AUGMENTATION,
        low=0.001,
        high=1,
    )
    flip: float = setting(
        0.5,
        "Probability of a horizontal flip.",
        group=AUGMENTATION,
        low=0,
        high=1,
    )
    jitter: float = setting(
        0.8,
        "Probability of the colour jitter.",
        group=AUGMENTATION,
        low=0,
        high=1,
    )
    brightness: float = setting(
        0.4,
        "Greatest value added by the jitter.",
        group=AUGMENTATION,
        low=0,
        high=1,
    )
    contrast: float = setting(
        0.4,
        "Greatest distance of the jitter's contrast factor from 1.",
        group=AUGMENTATION,
        low=0,
        high=1,
    )
    saturation: float = setting(
        0.2,
        "Greatest distance of the jitter's saturation factor from 1.",
        group=AUGMENTATION,
        low=0,
        high=1,
    )
    hue: float = setting(
        0.1,
        "Greatest rotation of the hue, as a share of the circle.",
        group=AUGMENTATION,
        low=0,
        high=0.5,
    )
    grayscale: float = setting(
        0.2,
        "Probability of dropping the colour.",
        group=AUGMENTATION,
        low=0,
        high=1,
    )
    blur: tuple[float, float] = setting(
        (1.0, 0.1),
        "Probabilities of the Gaussian blur, for T and T'.",
        group=AUGMENTATION,
        type=float,
        low=0,
        high=1,
    )
    solarize: tuple[float, float] = setting(
        (0.0, 0.2),
        "Probabilities of the solarization, for T and T'.",
        group=AUGMENTATION,
        type=float,
        low=0,
        high=1,
    )

    protocols: tuple[str, ...] = setting(
        (),
        "Measure the encoder by some of: knn; linear: the release's; "
        "linear_sweep: the paper's choice among five learning rates; "
        "linear_cached: the same on features computed once; semi_supervised: "
        "fine-tuning with 1 % and 10 % of the labels; finetune: with all; "
        "transfer: logistic regression; transfer_finetune; and the dense tasks "
        "segmentation, detection and depth. By default a quick comparison with "
        "an untrained encoder and with pixels.",
        group=EVALUATION,
        run=False,
        type=str,
        choices=(*PROTOCOLS, *DENSE_PROTOCOLS),
    )
    transfer_sets: tuple[str, ...] = setting(
        (),
        "Data sets of transfer and transfer_finetune, e.g. food101,dtd, or all "
        "for the ten of the paper's twelve that TensorFlow Datasets has; "
        "birdsnap:PATH and aircraft:PATH are folders. By default --dataset.",
        group=EVALUATION,
        run=False,
        type=str,
    )
    validation_fraction: float = setting(
        0.1,
        "Share of the labelled training images to choose hyperparameters on, "
        "class by class; at most 10,009 images, as in the paper.",
        group=EVALUATION,
        run=False,
        low=0.001,
        high=0.9,
    )
    knn_neighbours: tuple[int, ...] = setting(
        (1, 5, 20, 200),
        "Numbers of neighbours of knn.",
        group=EVALUATION,
        run=False,
        type=int,
        low=1,
    )
    classifier_batch_size: int | None = setting(
        None,
        "Images in a step of a classifier. By default as published: 1024, and "
        "256 for transfer_finetune; at most the images that there are.",
        group=EVALUATION,
        run=False,
        type=int,
        low=2,
    )
    linear_epochs: int = setting(
        80,
        "Epochs of linear, linear_sweep and linear_cached.",
        group=EVALUATION,
        run=False,
        low=1,
    )
    label_fractions: tuple[float, ...] = setting(
        (0.01, 0.1),
        "Shares of the labels that semi_supervised learns from.",
        group=EVALUATION,
        run=False,
        type=float,
        low=1e-6,
        high=1,
    )
    finetune_epochs: tuple[int, ...] = setting(
        (30, 50),
        "Lengths that semi_supervised and finetune choose from.",
        group=EVALUATION,
        run=False,
        type=int,
        low=1,
    )
    finetune_rates: tuple[float, ...] = setting(
        (0.01, 0.02, 0.05, 0.1, 0.005),
        "Learning rates that semi_supervised and finetune choose from, for "
        "the batch as it is.",
        group=EVALUATION,
        run=False,
        type=float,
        low=1e-9,
    )
    transfer_steps: int = setting(
        20_000,
        "Optimizer steps of transfer_finetune.",
        group=EVALUATION,
        run=False,
        low=1,
    )
    transfer_rates: tuple[float, ...] = setting(
        (1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1),
        "Learning rates that transfer_finetune chooses from.",
        group=EVALUATION,
        run=False,
        type=float,
        low=1e-9,
    )
    transfer_weight_decays: tuple[float, ...] = setting(
        (0.0, 1e-6, 3.16e-6, 1e-5, 3.16e-5, 1e-4, 3.16e-4, 1e-3),
        "Weight decays that transfer_finetune chooses from; each is divided by "
        "the learning rate, as in the paper.",
        group=EVALUATION,
        run=False,
        type=float,
        low=0,
    )

    segmentation_data: str = setting(
        "",
        "Images and masks of segmentation. voc:PATH: VOCdevkit/VOC2012. "
        "folder:PATH: images in PATH/train/images and PATH/test/images, masks "
        "of the same names, with the number of a class in each pixel and 255 "
        "where none counts, in PATH/train/masks and PATH/test/masks; "
        "PATH/classes.txt may name the classes. tfds:NAME.",
        group=DENSE,
        run=False,
    )
    detection_data: str = setting(
        "",
        "Images and boxes of detection. voc:PATH: VOCdevkit/VOC2007, trainval "
        "and test. coco:PATH: PATH/annotations/instances_train2017.json and "
        "instances_val2017.json, images in PATH/train2017 and PATH/val2017; or "
        "all of these names without the year. tfds:NAME, e.g. tfds:voc/2007 "
        "or tfds:coco/2017.",
        group=DENSE,
        run=False,
    )
    depth_data: str = setting(
        "",
        "Images and depths of depth. folder:PATH: images in PATH/train/images "
        "and PATH/test/images, depths of the same names in PATH/train/depths "
        "and PATH/test/depths, as PNG of 16 bits or as .npy in metres; 0 where "
        "none is known. tfds:NAME, e.g. tfds:nyu_depth_v2.",
        group=DENSE,
        run=False,
    )
    depth_unit: float = setting(
        0.001,
        "Metres of a 1 in PNG depths: 0.001 if they are millimetres.",
        group=DENSE,
        run=False,
        low=1e-9,
    )
    dense_encoder: str = setting(
        "finetuned",
        "finetuned: the encoder learns with what is put on it, as published. "
        "frozen: it stays as it is.",
        group=DENSE,
        run=False,
        choices=("finetuned", "frozen"),
    )
    dense_steps: int | None = setting(
        None,
        "Optimizer steps of a dense task. By default as published: 33,000 for "
        "segmentation, 24,000 for detection, 7,500 for depth.",
        group=DENSE,
        run=False,
        type=int,
        low=1,
    )
    dense_batch_size: int | None = setting(
        None,
        "Images in a step of a dense task, over all devices. By default as "
        "published: 16, and 256 for depth.",
        group=DENSE,
        run=False,
        type=int,
        low=1,
    )
    dense_rate: float | None = setting(
        None,
        "Learning rate of a dense task for the batch as it is. By default the "
        "published one, in proportion to the batch: 0.003 for 16 images in "
        "segmentation, 0.02 for 16 in detection, 0.16 for 256 in depth.",
        group=DENSE,
        run=False,
        type=float,
        low=0,
    )
    dense_warmup: int = setting(
        0,
        "Steps in which the learning rate of a dense task rises at first.",
        group=DENSE,
        run=False,
        low=0,
    )
    dense_weight_decay: float | None = setting(
        None,
        "l2 penalty on kernels in a dense task. By default as published: 1e-4, "
        "and 5e-4 for depth.",
        group=DENSE,
        run=False,
        type=float,
        low=0,
    )
    dense_size: tuple[int, ...] = setting(
        (),
        "Height and width, or one number for both, of what a dense task learns "
        "from; of detection the shorter side of images, and the most that the "
        "longer one may have, which one number is 5/3 of. By default as "
        "published: crops of 513 for segmentation, 800,1333 for detection, "
        "228,304 for depth.",
        group=DENSE,
        run=False,
        type=int,
        low=8,
    )

    strategy: str = setting(
        "none",
        "none: one device. mirrored: all devices of this machine, or "
        "--devices. multi_worker: one process on each of several machines, "
        "which TF_CONFIG in the environment lists; --run_dir is a folder that "
        "all of them see. tpu: the TPU of --tpu.",
        group=DEVICES,
        run=False,
        choices=("none", "mirrored", "multi_worker", "tpu"),
    )
    devices: tuple[str, ...] = setting(
        (),
        "Devices of --strategy=mirrored, e.g. GPU:0,GPU:1. By default all "
        "GPUs, or else all logical CPUs.",
        group=DEVICES,
        run=False,
        type=str,
    )
    logical_devices: int = setting(
        1,
        "Split the CPU into so many devices, to try a strategy on one machine.",
        group=DEVICES,
        run=False,
        low=1,
        high=64,
    )
    worker_timeout: int = setting(
        300,
        "Seconds to wait for the other machines of TF_CONFIG at the start.",
        group=DEVICES,
        run=False,
        low=1,
    )
    tpu: str = setting(
        "",
        "Name or address of the TPU; local for one of this machine.",
        group=DEVICES,
        run=False,
    )
    tpu_zone: str = setting(
        "", "Google Cloud zone of --tpu.", group=DEVICES, run=False
    )
    tpu_project: str = setting(
        "", "Google Cloud project of --tpu.", group=DEVICES, run=False
    )
    cross_replica_batch_norm: bool = setting(
        True,
        "BatchNorm's statistics are those of the whole batch, as published. "
        "--nocross_replica_batch_norm: of each device's part.",
        group=DEVICES,
    )
    micro_batches: int = setting(
        1,
        "Compute each device's gradient in so many parts, one after the other, "
        "for less memory. BatchNorm sees only one part at a time.",
        group=DEVICES,
        low=1,
    )
    precision: str = setting(
        "float32",
        "Of activations and gradients; with mixed_… the parameters, "
        "BatchNorm's statistics, LARS and the loss stay in float32.",
        group=DEVICES,
        choices=("float32", "mixed_bfloat16", "mixed_float16", "float64"),
    )
    steps_per_execution: int = setting(
        1,
        "Optimizer steps in one call of the compiled function. Logs and "
        "checkpoints come at the first opportunity after their time.",
        group=DEVICES,
        run=False,
        low=1,
    )
    jit_compile: str = setting(
        "auto",
        "Compile the step by XLA: on, off, or auto: on for one GPU, off on "
        "CPUs and under strategies.",
        group=DEVICES,
        run=False,
        choices=("auto", "on", "off"),
    )

    log_every: int = setting(
        20,
        "Steps between two lines of metrics.jsonl.",
        group=MONITORING,
        run=False,
        low=1,
    )
    monitor_every: int | None = setting(
        None,
        "Steps between two measurements of kNN accuracy and collapse. By "
        "default a twentieth of the run.",
        group=MONITORING,
        run=False,
        type=int,
        low=1,
    )
    monitor_images: int = setting(
        5000,
        "Training images that this kNN compares with; a fifth as many "
        "held-out ones are classified.",
        group=MONITORING,
        run=False,
        low=10,
    )
    on_collapse: str = setting(
        "stop",
        "When the loss is no number, or all images get much the same "
        "projection: stop, and say why; warn, and go on; or ignore it.",
        group=MONITORING,
        run=False,
        choices=("stop", "warn", "ignore"),
    )
    checkpoint_every: int = setting(
        1000,
        "Steps between two checkpoints; the last step always has one.",
        group=MONITORING,
        run=False,
        low=1,
    )
    checkpoint_every_seconds: int = setting(
        600,
        "Seconds after which there is one in any case.",
        group=MONITORING,
        run=False,
        low=1,
    )
    keep_checkpoints: int = setting(
        2,
        "Number of latest checkpoints to keep.",
        group=MONITORING,
        run=False,
        low=1,
    )
    resume: bool = setting(
        True,
        "Go on from the last checkpoint in --run_dir. --noresume begins again, "
        "and removes the run that is there: its checkpoints, metrics, encoder, "
        "report and results of protocols.",
        group=MONITORING,
        run=False,
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_limits(field, getattr(self, field.name))
        for name, published in zip(
            ("base_learning_rate", "weight_decay", "tau_base"),
            PRESETS.get(self.epochs, ()),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, published)
        self._check_dataset()
        if self.profile_input and self.mode != "pretrain":
            raise ConfigError(
                f"--profile_input goes with --mode=pretrain, not {self.mode}."
            )
        if self.profile_input and self.strategy != "none":
            raise ConfigError(
                "--profile_input measures one device: leave out --strategy="
                f"{self.strategy}."
            )
        if self.encoder and self.mode not in ("evaluate", "export"):
            raise ConfigError(
                f"--encoder={self.encoder} goes with --mode=evaluate or "
                f"--mode=export, not {self.mode}."
            )
        missing = [
            f"--{name}"
            for name in ("base_learning_rate", "weight_decay", "tau_base")
            if getattr(self, name) is None
        ]
        if missing and self.mode == "pretrain":
            raise ConfigError(
                f"--epochs={self.epochs} has no published recipe (40, 100, 300 "
                f"and 1000 have): give {', '.join(missing)} as well."
            )
        if self.transfer_sets and not any(
            name.startswith("transfer") for name in self.protocols
        ):
            raise ConfigError(
                f"--transfer_sets={as_text(self.transfer_sets)} goes with "
                "--protocols=transfer or transfer_finetune."
            )
        dense = [name for name in self.protocols if name in DENSE_PROTOCOLS]
        if dense and self.mode != "evaluate":
            raise ConfigError(
                f"--protocols={as_text(dense)} goes with --mode=evaluate only."
            )
        if len(self.dense_size) > 2:
            raise ConfigError(
                f"--dense_size={as_text(self.dense_size)} is more than a "
                "height and a width."
            )
        for name in NOT_EMPTY:
            if not getattr(self, name):
                raise ConfigError(f"--{name} is empty: it takes one at least.")
        self._check_encoder()
        self._check_checkpoint()
        self._check_devices()
        self._check_variant()
        for name in ("blur", "solarize"):
            if len(getattr(self, name)) != 2:
                raise ConfigError(
                    f"--{name} takes two probabilities, for T and T', e.g. "
                    f"--{name}={','.join(map(str, _default(name)))}."
                )

    def _check_dataset(self) -> None:
        kind, _, argument = self.dataset.partition(":")
        if self.dataset != "bundled" and not (
            kind in ("folder", "npz", "tfrecord", "tfds") and argument
        ):
            raise ConfigError(
                f"--dataset={self.dataset} is none of bundled, folder:PATH, "
                "npz:PATH, tfrecord:GLOB, tfds:NAME."
            )
        if self.tfrecord_test and not (
            kind == "tfrecord" and self.tfrecord_classes
        ):
            raise ConfigError(
                "--tfrecord_test goes with --dataset=tfrecord:GLOB and "
                "--tfrecord_classes."
            )
        host, _, port = self.data_service.rpartition(":")
        if self.data_service and not (
            host and port.isdecimal() and int(port) < 2**16
        ):
            raise ConfigError(
                f"--data_service={self.data_service} is no HOST:PORT."
            )

    def _check_checkpoint(self) -> None:
        path = self.deepmind_checkpoint
        if self.mode == "convert" and not path:
            raise ConfigError(
                "--mode=convert needs --deepmind_checkpoint=FILE, a checkpoint "
                "of the official release."
            )
        if self.mode in ("pretrain", "preview") and path:
            raise ConfigError(
                f"--deepmind_checkpoint={path} goes with --mode=convert, not "
                f"{self.mode}."
            )

    def _check_variant(self) -> None:
        for name, needed, goes in (
            ("tau_end", "--tau_schedule=warmup", self.tau_schedule == "warmup"),
            (
                "tau_warmup_steps",
                "--tau_schedule=warmup",
                self.tau_schedule == "warmup",
            ),
            (
                "tau_schedule",
                "--target=moving_average",
                self.target == "moving_average",
            ),
            ("predictor_rate", "--predictor=mlp", self.predictor == "mlp"),
            (
                "temperature",
                "--negatives_weight above 0",
                self.negatives_weight > 0,
            ),
        ):
            value = getattr(self, name)
            if value != _default(name) and not goes:
                raise ConfigError(
                    f"--{name}={as_text(value)} goes with {needed} only."
                )

    def _check_devices(self) -> None:
        for names, strategy in (
            (("devices", "logical_devices"), "mirrored"),
            (("tpu", "tpu_zone", "tpu_project"), "tpu"),
        ):
            for name in names:
                value = getattr(self, name)
                if value != _default(name) and self.strategy != strategy:
                    raise ConfigError(
                        f"--{name}={as_text(value)} goes with --strategy="
                        f"{strategy}, not {self.strategy}."
                    )
        if self.batch_size % self.micro_batches:
            raise ConfigError(
                f"--batch_size={self.batch_size} is no multiple of "
                f"--micro_batches={self.micro_batches}."
            )
        if self.jit_compile == "on" and self.strategy != "none":
            raise ConfigError(
                "--jit_compile=on works on one device only, not with "
                f"--strategy={self.strategy}; leave it at auto."
            )
        if self.jit_compile == "on" and self.deterministic:
            raise ConfigError(
                "--jit_compile=on does not go with --deterministic: not all "
                "operations are deterministic under XLA. Leave it at auto."
            )

    def _check_encoder(self) -> None:
        """Settles the sizes; of depth and blocks given both, depth wins."""
        if self.mode == "convert":
            return  # The checkpoint decides.
        for name, published in PUBLISHED_SIZES.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, published)
        if self.encoder_depth is not None:
            if self.encoder_depth not in DEPTHS:
                raise ConfigError(
                    f"--encoder_depth={self.encoder_depth} is none of "
                    f"{as_text(DEPTHS)}."
                )
        elif self.encoder_blocks:
            for name in ("encoder_channels", "encoder_group_strides"):
                count = len(getattr(self, name))
                # Strides have a default.
                if count != len(self.encoder_blocks) and (
                    count or name == "encoder_channels"
                ):
                    raise ConfigError(
                        f"--encoder_blocks={as_text(self.encoder_blocks)} "
                        f"needs as many --{name}, not "
                        f"{as_text(getattr(self, name))!r}."
                    )
        else:
            for name in (
                "encoder_channels",
                "encoder_group_strides",
                "encoder_bottleneck",
            ):
                if getattr(self, name):
                    raise ConfigError(
                        f"--{name} needs --encoder_blocks: it describes a "
                        "network without a published depth."
                    )
            object.__setattr__(self, "encoder_depth", 50)

    def check_batch(self, images: int) -> None:
        """Raises ConfigError if the batch is larger than the training set."""
        if self.batch_size > images:
            raise ConfigError(
                f"--batch_size={self.batch_size} is more than --dataset="
                f"{self.dataset} has images ({images})."
            )

    def flagfile(self) -> str:
        """All settings as a flagfile that asks for the same, or goes on."""
        names = [field.name for field in dataclasses.fields(self)]
        names.remove("resume")  # The file must not begin a run again.
        if self.mode == "convert":
            names = ["mode", "run_dir", "deepmind_checkpoint", *ARCHITECTURE]
        return "".join(
            f"--{name}={as_text(getattr(self, name))}\n"
            for name in names
            if getattr(self, name) is not None
        )

    def resolved(self, **values) -> "Config":
        """A copy with the values that only the data could tell."""
        return dataclasses.replace(self, **values)

    def save(self, path: pathlib.Path) -> None:
        """Writes all settings as JSON."""
        partial = path.with_suffix(".partial")
        partial.write_text(
            json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        )
        partial.replace(path)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Config":
        """Reads what `save` wrote; settings of another version are refused."""
        try:
            return cls.of(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} is not a configuration of this version ({error}); "
                "choose another --run_dir."
            ) from error

    @classmethod
    def of(cls, values: dict) -> "Config":
        """The configuration with these values, as JSON gives them back."""
        return cls(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
            }
        )

    def differences(self, other: "Config") -> list[str]:
        """Where the two describe different runs: '--flag=ours (theirs there)'.

        What is left to the data here (None) may be settled there. A run that
        was converted has no data and no training, but only what its checkpoint
        decided.
        """
        compared = [
            field.name
            for field in dataclasses.fields(self)
            if field.metadata["run"]
        ]
        if other.mode == "convert":
            compared = ["deepmind_checkpoint", *ARCHITECTURE]
        return [
            f"--{name}={as_text(getattr(self, name))} "
            f"({as_text(getattr(other, name)) or 'none'} there)"
            for name in compared
            if getattr(self, name) not in (None, (), getattr(other, name))
        ]


def as_text(value) -> str:
    """A setting's value as a flag takes it."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _default(name: str):
    return Config.__dataclass_fields__[name].default


def _check_limits(field: dataclasses.Field, value) -> None:
    kind = field.metadata
    values = value if isinstance(value, tuple) else (value,)
    for item in values:
        if "choices" in kind and item not in kind["choices"]:
            raise ConfigError(
                f"--{field.name}={item} is none of "
                f"{', '.join(kind['choices'])}."
            )
    for number in values:
        if number is None:
            continue
        low, high = kind.get("low"), kind.get("high")
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"--{field.name}={as_text(value)} is no number.")
        if low is not None and number < low:
            raise ConfigError(
                f"--{field.name}={as_text(value)} is below {low}."
            )
        if high is not None and number > high:
            raise ConfigError(
                f"--{field.name}={as_text(value)} is above {high}."
            )
