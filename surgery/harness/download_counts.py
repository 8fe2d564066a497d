"""Stop `datasets` from reporting to a server which loaders are used."""


def disable_download_counts() -> None:
    """Turn the reports off in this process. Needs `datasets`, which lm-eval installs."""
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
