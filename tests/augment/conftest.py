from small_sets import discs, one_thread  # noqa: F401 (fixtures)
