"""`python -m cprd_pipeline` is the console script."""

from cprd_pipeline.cli import main

if __name__ == "__main__":
    main()
