"""`msbal backends coverage`: which models of a framework's zoo can be balanced, each proved on one batch.

    zoo -> names -> (models that come out alike are proved once) -> worker processes -> a line of JSON a config

Nothing is imported here.
"""
