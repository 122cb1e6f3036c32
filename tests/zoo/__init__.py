"""Every model of each framework's zoo, built small and proved or refused: what `docs/coverage` shows.

python3 tests/zoo mmdet detectron2 --jobs 2
"""
