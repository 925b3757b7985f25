"""``python -m mlflow_fasttrace``: the command ``mlflow-fasttrace``."""

from mlflow_fasttrace._internal.cli.main import main

if __name__ == "__main__":
    main(prog_name="mlflow-fasttrace")
