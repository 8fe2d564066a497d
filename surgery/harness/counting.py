"""Keep tasks of local files local: `datasets` reports to a server which loader was used."""


def count_nothing() -> None:
    """Turn that off in this process. `datasets` has to be installed, as it is with lm-eval."""
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
