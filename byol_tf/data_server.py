"""The servers behind `--data_service`: a dispatcher, and any number of workers.

  python -m byol_tf.data_server dispatcher --port=5050 --work_dir=DIR
  python -m byol_tf.data_server worker --port=5051 --dispatcher=HOST:5050
  python byol_tf/main.py --data_service=HOST:5050 …

Workers need the images under the paths at which the training finds them, and
TensorFlow of the same version; any other server of tf.data service will do. A
dispatcher with a --work_dir and a worker can be killed and started again at the
same port while a training runs.
"""

import argparse
import os
import signal
import socket
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(arguments: list[str]) -> int:
    """Serves until a signal ends it; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        server = options.start(options)
    except OSError as error:
        print(f"byol_tf.data_server: {error}", file=sys.stderr)
        return 1
    print(f"{options.kind} at {options.address}", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    while server:
        signal.pause()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m byol_tf.data_server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    dispatcher = kinds.add_parser("dispatcher")
    dispatcher.set_defaults(start=_start_dispatcher)
    dispatcher.add_argument("--port", type=int, required=True)
    dispatcher.add_argument(
        "--work_dir",
        default="",
        help="Folder for what a dispatcher that is started again must know.",
    )
    worker = kinds.add_parser("worker")
    worker.set_defaults(start=_start_worker)
    worker.add_argument("--port", type=int, required=True)
    worker.add_argument("--dispatcher", required=True, metavar="HOST:PORT")
    worker.add_argument(
        "--host",
        help="Name or address of this machine for those who train. By default "
        "its address towards the dispatcher.",
    )
    return parser


def _start_dispatcher(options):
    _check_free(options.port)
    service = _service()
    options.address = f"port {options.port}"
    return service.DispatchServer(
        service.DispatcherConfig(
            port=options.port,
            work_dir=options.work_dir or None,
            fault_tolerant_mode=bool(options.work_dir),
            worker_timeout_ms=60_000,
        )
    )


def _start_worker(options):
    _check_free(options.port)
    host, _, port = options.dispatcher.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as there:
            own_address = there.getsockname()[0]
    except (OSError, ValueError) as error:
        raise OSError(
            f"--dispatcher={options.dispatcher} is not reached: {error}"
        ) from error
    service = _service()
    options.address = f"{options.host or own_address}:{options.port}"
    return service.WorkerServer(
        service.WorkerConfig(
            dispatcher_address=options.dispatcher,
            worker_address=options.address,
            port=options.port,
        )
    )


def _check_free(port: int) -> None:
    try:
        socket.create_server(("", port)).close()
    except (OSError, OverflowError) as error:
        raise OSError(f"--port={port} cannot be used: {error}") from error


def _service():
    import tensorflow as tf  # Here, and not above: it takes seconds.

    return tf.data.experimental.service


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
