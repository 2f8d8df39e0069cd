"""What a training step costs as it grows: counted, and measured here.

    python -m byol_tf.benchmarks.scaling
    python -m byol_tf.benchmarks.scaling --measure

Prints Markdown. Without --measure nothing is trained: the numbers are counted
from shapes. With it small networks are trained for a few steps, each in a
process of its own, and what they take is set beside the count. Bytes between
processes are those that the loopback interface reports, so nothing else should
use it meanwhile; needs Linux.
"""

import argparse
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from byol_tf.benchmarks import counting
from byol_tf.model.byol import BYOL
from byol_tf.model.resnet import ResNet
from byol_tf.optim.lars import LARS

MIB = 2**20
HEADS = (512, 64)  # Of the networks that are measured.
NARROW_50 = dict(
    blocks=(3, 4, 6, 3),
    channels=(64, 128, 256, 512),
    bottleneck=True,
    stem_channels=16,
)
NARROW_18 = dict(blocks=(2, 2, 2, 2), channels=(16, 32, 64, 128))
STEPS = 10


def main(arguments=None) -> None:
    """Counts or measures, and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--encoder_depth", type=int, nargs="+", default=[18, 50, 200]
    )
    parser.add_argument("--encoder_width", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--image_size", type=int, nargs="+", default=[224], help="pixels"
    )
    parser.add_argument(
        "--batch_size", type=int, default=4096, help="over all replicas"
    )
    parser.add_argument("--replicas", type=int, default=32)
    parser.add_argument(
        "--measure", action="store_true", help="train small networks; minutes"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(arguments)
    if arguments.child:
        print(json.dumps(measured(**json.loads(arguments.child))))
    elif arguments.measure:
        measure_times()
        measure_memory()
        measure_communication()
    else:
        print_counts(arguments)


def table(head: str, *rows) -> None:
    """Prints Markdown under a head such as "a | b"."""
    rows = [head.split(" | "), *rows]
    rows = [[f"{c:,}" if isinstance(c, int) else c for c in r] for r in rows]
    rows.insert(1, ["---"] + ["---:"] * (len(rows[0]) - 1))
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def print_counts(arguments) -> None:
    """Two tables: of an image, and of a replica in a step."""
    n = arguments.replicas
    images = -(-arguments.batch_size // n)
    costs, replicas = [], []
    for depth in arguments.encoder_depth:
        for width in arguments.encoder_width:
            encoder = ResNet(depth, width)
            name = f"ResNet-{depth}" + (f" x{width}" if width > 1 else "")
            for size in arguments.image_size:
                encoder.recompute = False
                plain = counting.count(encoder, size)
                encoder.recompute = True
                again = counting.count(encoder, size)
                costs.append(
                    [
                        name,
                        size,
                        plain.parameters,
                        f"{plain.forward_macs / 1e9:.2f}",
                        f"{plain.step_macs / 1e9:.1f}",
                        f"{again.step_macs / 1e9:.1f}",
                        f"{plain.kept_bytes / MIB:.0f}",
                        f"{again.kept_bytes / MIB:.0f}",
                    ]
                )
                extra = again.norm_reductions - plain.norm_reductions
                replicas.append(
                    [
                        name,
                        size,
                        f"{plain.state_bytes / 2**30:.2f}",
                        f"{images * plain.kept_bytes / 2**30:.1f}",
                        f"{images * again.kept_bytes / 2**30:.1f}",
                        f"{plain.gradient_bytes(n) / MIB:.0f}",
                        f"{plain.norm_bytes(n) / MIB:.2f}",
                        plain.norm_reductions,
                        extra,
                    ]
                )
    print("Each image:\n")
    table(
        "network | size | parameters | forward, GMAC | step, GMAC | "
        "step recomputed, GMAC | kept, MiB | kept recomputed, MiB",
        *costs,
    )
    print(f"Each of {n} replicas, in a step of {images} images each:\n")
    table(
        "network | size | state, GiB | kept, GiB | kept recomputed, GiB | "
        "gradients sent, MiB | BatchNorm sent, MiB | BatchNorm all-reduces | "
        "recomputing adds",
        *replicas,
    )


def child(environment=(), **settings) -> subprocess.Popen:
    """`measured(**settings)`, in a process of its own."""
    command = [sys.executable, "-m", "byol_tf.benchmarks.scaling"]
    return subprocess.Popen(
        [*command, "--child", json.dumps(settings)],
        env=os.environ | dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results_of(processes: int, **settings) -> list[dict]:
    """What `measured` returns in each of so many processes."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(processes)]
    running = [
        child(
            [("TF_CONFIG", tf_config(addresses, index))],
            processes=processes,
            **settings,
        )
        for index in range(processes)
    ]
    return [result(process) for process in running]


def result(process: subprocess.Popen) -> dict:
    """What it printed.

    Raises:
      RuntimeError: if it failed.
    """
    output, errors = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(f"A measurement failed:\n{errors[-2000:]}")
    return json.loads(output.splitlines()[-1])


def measured(
    network: dict, batch_size: int, image_size: int, processes: int = 1
) -> dict:
    """Trains for some steps.

    Returns:
      `seconds`, the least of a step; `peak_bytes` of memory of this process;
      `all_reduces`, the number of them in the graph of a step; `sent_bytes` of
      the loopback interface for each step, over all processes.
    """
    strategy = tf.distribute.get_strategy()
    if processes > 1:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = BYOL(ResNet(**network), *HEADS, total_steps=100)
        model.compile(LARS(0.1))
        model.optimizer.build(model.trainable_variables)
    shape = [batch_size, image_size, image_size, 3]
    view1, view2 = tf.random.uniform(shape), tf.random.uniform(shape)

    @tf.function
    def step():
        figures = strategy.run(model.update, (view1, view2))
        return strategy.reduce("MEAN", figures["loss"], axis=None)

    graph = step.get_concrete_function().graph.as_graph_def()
    nodes = [
        *graph.node,
        *(n for f in graph.library.function for n in f.node_def),
    ]
    for _ in range(3):
        step().numpy()
    before, times = loopback_bytes(), []
    for _ in range(STEPS):
        start = time.perf_counter()
        step().numpy()
        times.append(time.perf_counter() - start)
    return {
        "seconds": min(times),
        "sent_bytes": (loopback_bytes() - before) / STEPS,
        "all_reduces": sum("CollectiveReduce" in node.op for node in nodes),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def loopback_bytes() -> int:
    """Sent so far, by all processes of this machine to one another."""
    for line in pathlib.Path("/proc/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == "lo":
            return int(figures.split()[8])
    return 0


def count(network: dict, image_size: int) -> counting.Step:
    """Of a network that is measured."""
    return counting.count(ResNet(**network), image_size, *HEADS)


def measure_times() -> None:
    """A step's time against its multiply-adds."""
    rows = []
    for width, size, batch in (
        (2, 64, 16),
        (2, 64, 32),
        (2, 64, 64),
        (2, 128, 16),
        (4, 64, 16),
    ):
        network = NARROW_18 | {"width": width}
        seconds = result(
            child(network=network, batch_size=batch, image_size=size)
        )["seconds"]
        macs = batch * count(network, size).step_macs / 1e9
        rows.append(
            [f"narrow ResNet-18 x{width}", size, batch, f"{macs:.1f}"]
            + [f"{1e3 * seconds:.0f}", f"{macs / seconds:.0f}"]
        )
    print("Time of a step:\n")
    table("network | size | batch | GMAC | ms | GMAC/s", *rows)


def measure_memory(size: int = 128) -> None:
    """Peak memory against what is kept: the slope over batch sizes."""
    rows = []
    for recompute, processes in ((False, 1), (True, 1), (False, 2)):
        network = NARROW_50 | {"recompute": recompute}
        small, large = (
            results_of(
                processes, network=network, batch_size=batch, image_size=size
            )[0]
            for batch in (16, 48)
        )
        slope = (large["peak_bytes"] - small["peak_bytes"]) / 32 / MIB
        rows.append(
            [
                "narrow ResNet-50"
                + ", recomputed" * recompute
                + ", each of two processes" * (processes > 1),
                size,
                f"{count(network, size).kept_bytes / MIB:.1f}",
                f"{slope:.1f}",
                f"{1e3 * large['seconds']:.0f}",
            ]
        )
    print("Memory, from batches of 16 and 48:\n")
    table(
        "network | size | counted, MiB/image | measured, MiB/image | "
        "ms at batch 48",
        *rows,
    )


def measure_communication(size: int = 32) -> None:
    """Bytes between two processes against the count."""
    rows = []
    for width, recompute, processes in (
        (1, False, 1),
        (1, False, 2),
        (4, False, 2),
        (4, True, 2),
    ):
        network = NARROW_18 | {"width": width, "recompute": recompute}
        results = results_of(
            processes, network=network, batch_size=8, image_size=size
        )
        step = count(network, size)
        sent = step.gradient_bytes(processes) + step.norm_bytes(processes)
        rows.append(
            [
                f"narrow ResNet-18 x{width}" + ", recomputed" * recompute,
                processes,
                # And one each for the gradients and the loss.
                step.norm_reductions + 2 if processes > 1 else 0,
                results[0]["all_reduces"],
                f"{processes * sent / 1e6:.2f}",
                f"{results[0]['sent_bytes'] / 1e6:.2f}",
                f"{1e3 * statistics.mean(r['seconds'] for r in results):.0f}",
            ]
        )
    print("What two processes send:\n")
    table(
        "network | processes | all-reduces counted | in the graph | "
        "counted, MB/step | measured, MB/step | ms",
        *rows,
    )


def tf_config(addresses: list[str], index: int) -> str:
    """TensorFlow's description of the processes, for one of them."""
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def free_ports(number: int) -> list[int]:
    """Of this machine, at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


if __name__ == "__main__":
    main()
