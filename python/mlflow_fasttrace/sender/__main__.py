"""``python -m mlflow_fasttrace.sender STATE_FOLDER RINGS_FOLDER``; an agent starts it."""

import logging
import os
import signal
import sys

from mlflow_fasttrace.sender.loop import run_sender


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s"
    )
    logging.getLogger("mlflow_fasttrace").setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # A terminal's Ctrl-C is meant for the agent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing else is delivered while MLflow's client tries again; the sender does that itself.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    run_sender(sys.argv[1], sys.argv[2], os.environ["MLFLOW_TRACKING_URI"], lambda: bool(stop))
    return 0


if __name__ == "__main__":
    sys.exit(main())
