"""Studies: trials of architectures, proposed by a tuner, kept in a database, resumed after any end.

Nothing is imported here: ``nnas_core.study.storage.store`` needs SQLAlchemy, the other files do not.
"""
