"""The module folders are what the records, the cards and the templates give."""

from clip_common.config import PRETRAINED
from scripts.module_cards import CARDS
from scripts.render_modules import MODULES, stale


def test_no_file_is_stale() -> None:
    """`python -m scripts.render_modules` writes them."""
    assert [str(path.relative_to(MODULES.parent)) for path in stale()] == []


def test_every_module_has_a_card_and_a_folder() -> None:
    assert set(CARDS) == set(PRETRAINED)
    assert {folder.parent.name for folder in MODULES.glob("*/module.py")} == set(PRETRAINED)
