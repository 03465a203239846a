"""``python -m snn_optimizer`` is ``snnopt``."""

from snn_optimizer.cli.main import main

if __name__ == "__main__":
    main()
