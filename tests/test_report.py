"""The report: every figure in the text, every plot a picture."""

import json

import numpy as np
import PIL.Image

from byol_tf import plots, report

ROWS = [
    {
        "step": step,
        "repr_loss": 4.0 / step,
        "classif_loss": 2.0,
        "tau": 0.99,
        "learning_rate": 0.1,
        **(
            {"knn_top1": 0.7, "projection_std": 0.1, "effective_rank": 9.0}
            if step % 2 == 0
            else {}
        ),
    }
    for step in range(1, 9)
]
PRETRAIN = {
    "dataset": "bundled",
    "encoder_parameters": 1234567,
    "steps": 8,
    "batch_size": 4,
    "seconds": 12.0,
    "images_per_second": 321.0,
    "final_loss": 0.5,
    "skipped_images": 3,
}
EVALUATION = {
    "knn_top1": 0.8125,
    "linear_top1": 0.8533,
    "baselines": {
        "random_init": {"knn_top1": 0.7011, "linear_top1": 0.7522},
        "raw_pixels": {"knn_top1": 0.8044, "linear_top1": 0.8455},
    },
    "dataset": "bundled",
    "neighbours": 20,
    "train_images": 100,
    "test_images": 20,
}


def collapse(*found):
    return {
        "projection_size": 16,
        "projection_std": 0.2,
        "effective_rank": 9.0,
        "eigenvalue_spread": 1234.5,
        "mean_cosine": 0.375,
        "gradient_norm": 0.25,
        "trust_ratio_median": 0.0625,
        "found": list(found),
    }


def test_sections_accumulate(tmp_path):
    report.update(tmp_path, pretrain=PRETRAIN, collapse=collapse())
    report.update(tmp_path, evaluation=EVALUATION)
    report.update(tmp_path, export={"max_abs_diff": 1.5e-7})
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["pretrain"] == PRETRAIN
    assert saved["evaluation"] == EVALUATION
    text = (tmp_path / "report.md").read_text()
    for figure in ("81.2", "85.3", "70.1", "75.2", "80.4", "84.5", "1.5e-07"):
        assert figure in text
    for figure in ("0.2000", "9.0 of 16", "1.23e+03", "0.375", "0.0625"):
        assert figure in text
    assert "1,234,567" in text
    assert "Healthy: no collapse" in text


def test_without_baselines_and_with_negatives(tmp_path):
    report.update(
        tmp_path,
        pretrain=PRETRAIN | {"negatives_weight": 1.0},
        collapse=collapse(),
        evaluation=EVALUATION | {"baselines": {}},
    )
    text = (tmp_path / "report.md").read_text()
    assert "final loss with negatives | 0.500" in text
    assert "| **learned encoder** | 81.2 | 85.3 |" in text
    assert "not trained" not in text and "raw pixels" not in text


def test_a_collapse_is_called_one(tmp_path):
    found = collapse("collapsed projections", "predictor missing")
    report.update(tmp_path, pretrain=PRETRAIN, collapse=found)
    text = (tmp_path / "report.md").read_text()
    assert "Found: collapsed projections; predictor missing." in text


def test_a_run_that_diverged_has_a_report(tmp_path):
    figures = collapse("not finite") | {"projection_std": None}
    pretrain = PRETRAIN | {"final_loss": None}
    report.update(tmp_path, pretrain=pretrain, collapse=figures)
    text = (tmp_path / "report.md").read_text()
    assert "| final BYOL loss (0 to 8) | not finite |" in text
    report.update(
        tmp_path,
        evaluation={"skipped": "No labels."},
        export={"skipped": "Features not finite."},
    )
    assert "No labels." in (tmp_path / "report.md").read_text()
    assert "Features not finite." in (tmp_path / "report.md").read_text()


def test_plots_are_pictures_and_stand_in_the_report(tmp_path):
    plots.plot_training(ROWS, tmp_path, projection_size=16)
    images = np.random.rand(3, 12, 12, 3)
    folder = tmp_path / "plots"
    plots.draw_views(images, images, images, folder / "augmented_pairs.png")
    named = [(image, "shoe") for image in images]
    plots.draw_neighbours(named[:2], [named, named], folder / "neighbours.png")
    report.update(tmp_path, pretrain=PRETRAIN, collapse=collapse())
    text = (tmp_path / "report.md").read_text()
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "loss.png",
        "tau.png",
        "knn.png",
        "collapse.png",
        "augmented_pairs.png",
        "neighbours.png",
    }
    for name in names:
        assert f"plots/{name}" in text
        pixels = np.asarray(PIL.Image.open(folder / name).convert("L"))
        assert pixels.std() > 5


def protocol(name, value, *differs, paper=None, data="bundled", **changes):
    row = {
        "name": "k = 1",
        "metric": "top1",
        "value": value,
        "low": value - 0.02,
        "high": value + 0.02,
        "chosen": {"rate": 0.05, "validation": {"0.05": 0.5}},
        "paper": paper,
        "paper_data": "ImageNet",
    }
    return {
        "protocol": name,
        "data": data,
        "encoder": "one",
        "encoder_path": "runs/one/encoder.keras",
        "rows": [row],
        "differs": list(differs),
        "notes": ["validation is drawn."],
        "images": {"train": 9000, "validation": 1000, "test": 2000},
        "seed": 3,
        "seconds": 61.2,
        **changes,
    }


def test_protocols_stand_beside_the_papers_figures(tmp_path):
    first = protocol("knn", 0.81, "data: bundled", "images of 28 pixels")
    report.add_protocol(tmp_path, first)
    report.add_protocol(
        tmp_path,
        protocol("linear", 0.8349, "data: bundled", "2 epochs", paper=74.3),
    )
    text = (tmp_path / "report.md").read_text()
    assert "| knn [1] | bundled | k = 1 | top-1 | **81.0** |" in text
    assert "| **83.5** | 81.5 to 85.5 | 74.3 (ImageNet) |" in text
    assert "Not as in the paper here: data: bundled. The intervals" in text
    assert "61 s. Chosen: k = 1: rate 0.05. Not as in the paper: 2 ep" in text
    assert "9,000 training, 1,000 validation and 2,000 test images" in text
    assert "Validation is drawn." in text
    assert "Encoder: `runs/one/encoder.keras` (SHA-256 one…).\n" in text

    report.add_protocol(tmp_path, first | {"seed": 4})  # In its place.
    results = json.loads((tmp_path / "report.json").read_text())["protocols"]
    assert [(r["protocol"], r["seed"]) for r in results] == [
        ("linear", 3),
        ("knn", 4),
    ]


def test_results_of_another_encoder_are_dropped(tmp_path):
    def sections():
        return json.loads((tmp_path / "report.json").read_text())

    report.update(tmp_path, pretrain=PRETRAIN, collapse=collapse())
    report.set_evaluation(tmp_path, EVALUATION | {"encoder": "one"})
    report.add_protocol(tmp_path, protocol("knn", 0.8))
    report.add_protocol(tmp_path, protocol("linear", 0.8))
    assert len(sections()["protocols"]) == 2
    assert sections()["evaluation"]["knn_top1"] == 0.8125

    report.add_protocol(tmp_path, protocol("knn", 0.5, encoder="another"))
    assert [r["encoder"] for r in sections()["protocols"]] == ["another"]
    assert "evaluation" not in sections()
    assert sections()["pretrain"] == PRETRAIN

    report.set_evaluation(tmp_path, EVALUATION | {"encoder": "one"})
    assert "protocols" not in sections()


def test_a_long_path_is_cut_in_the_table(tmp_path):
    result = protocol("knn", 0.5, data="folder:/a/long/path/photos")
    text = report.protocols_text([result])
    assert "| folder:…/photos |" in text
