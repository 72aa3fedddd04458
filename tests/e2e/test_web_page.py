"""The page for people, in a real headless Chromium: from upload to answer. Needs Chromium and its driver."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("selenium", reason="of the extra [test]")
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from clip_common.cli.main import main
from clip_common.config import pretrained
from clip_common.errors import ClipError
from clip_common.predictor import Predictor
from clip_common.search.finder import finder_of
from clip_common.server.answering import answer
from clip_common.server.limits import Limits
from clip_common.server.request import RequestBody
from clip_common.server.web_page import create_page
from tests.support.paths import ROOT
from tests.support.processes import free_port

DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not DRIVER, reason="needs chromium and chromium-driver; CI installs both")
SHOTS = os.environ.get("CLIP_HUB_SCREENSHOTS")  # a folder, to look at what the tests saw


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the example images, as the commands make it."""
    folder = tmp_path_factory.mktemp("index")
    assert main(["embed", str(ROOT / "examples"), "--output", str(folder / "vectors")]) == 0
    assert main(["index", str(folder / "vectors"), "--index", str(folder / "pictures.db")]) == 0
    return folder / "pictures.db"


@pytest.fixture(scope="module")
def address(index: Path) -> Iterator[str]:
    predictor = Predictor(pretrained("clip_mini"))

    async def ask(body: dict[str, Any]) -> Any:
        (result,) = await asyncio.to_thread(answer, predictor, [RequestBody.parse(body).work(Limits())])
        if isinstance(result, ClipError):
            raise result
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIP_HUB_INDEX", str(index))
        page = create_page(predictor.record, ask, finder_of(predictor.record, predictor.options))
    page.launch(server_port=free_port(), prevent_thread_lock=True, quiet=True)
    yield page.local_url
    page.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """The page as a visitor uses it."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        driver.get(address)
        self.wait("button.primary")

    def wait(self, selector: str, words: str = "") -> WebElement:
        """The first visible element of a selector, once it is there with such words."""

        def found(driver: webdriver.Chrome) -> Any:
            items = [item for item in driver.find_elements(By.CSS_SELECTOR, selector) if item.is_displayed()]
            return next((item for item in items if words in item.text), None)

        try:
            return WebDriverWait(self.driver, 60).until(found)
        except TimeoutException:
            self.save("page_missing")
            raise AssertionError(f"no {selector} with {words!r}") from None

    def upload(self, *files: Path) -> None:
        def field(driver: webdriver.Chrome) -> Any:  # hidden, and made when its tab is
            panels = driver.find_elements(By.CSS_SELECTOR, "div[role=tabpanel]")
            shown = [panel for panel in panels if panel.is_displayed()]
            fields = [
                each for panel in shown for each in panel.find_elements(By.CSS_SELECTOR, "input[type=file]")
            ]
            return fields[0] if fields else None

        WebDriverWait(self.driver, 60).until(field).send_keys("\n".join(map(str, files)))

    def write(self, field: str, text: str) -> None:
        self.wait("label", field).find_element(By.TAG_NAME, "textarea").send_keys(text)

    def heat_of(self, label: str) -> np.ndarray:
        """How colourful the map of a label is, [height, width], once it is there."""
        image = self.wait("figure", f"“{label}”").find_element(By.TAG_NAME, "img")
        kind, _, content = str(image.get_attribute("src")).partition(",")
        assert kind == "data:image/png;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)
        return pixels.max(axis=2) - pixels.min(axis=2)

    def found(self) -> list[str]:
        """The names below the images of the gallery, read at once: it may be drawn anew meanwhile."""
        script = "return [...document.querySelectorAll('.caption-label')].map(label => label.textContent)"
        return [label.split()[-1] for label in self.driver.execute_script(script)]

    def save(self, name: str) -> None:
        if SHOTS:
            self.driver.save_screenshot(str(Path(SHOTS) / f"{name}.png"))


def test_from_upload_to_scores(chromium: webdriver.Chrome, address: str) -> None:
    page = Page(chromium, address)
    page.upload(ROOT / "examples" / "diagram.png")
    page.wait("img")
    page.write("Labels", "a diagram, a dog, a cat")
    page.wait("button.primary", "Classify").click()
    scores = page.wait("div[role=tabpanel]", "%").text
    best, *others = scores[scores.index("Scores") :].splitlines()[1:]
    assert best == "a diagram"
    assert {"a dog", "a cat"} <= set(others)
    page.save("page_classify")


def test_each_label_by_itself_and_none_of_these(chromium: webdriver.Chrome, address: str) -> None:
    page = Page(chromium, address)
    page.upload(ROOT / "examples" / "dog.png")
    page.wait("img")
    page.write("Labels", "a dog, a cat, a car")
    page.wait("label", "each label by itself").click()
    threshold = page.wait("label", "Threshold").find_element(By.CSS_SELECTOR, "input, textarea")
    threshold.send_keys("0.2")
    page.wait("button.primary", "Classify").click()
    shown = page.wait("div[role=tabpanel]", "a dog (0.").text
    assert "a car (" not in shown
    page.save("page_cosine")
    threshold.send_keys("\ue009a\ue000", "0.95")  # Ctrl+A
    page.wait("button.primary", "Classify").click()
    page.wait("div[role=tabpanel] h2, div[role=tabpanel]", "none of these")
    page.save("page_none_of_these")


def test_a_click_on_a_label_shows_where_the_image_has_it(
    chromium: webdriver.Chrome, address: str, tmp_path: Path
) -> None:
    """A dog on the left, a parrot on the right; the second label by keyboard."""
    dog, parrot = (Image.open(ROOT / "examples" / f"photo_{name}.jpg") for name in ("dog", "parrot"))
    two = Image.new("RGB", (288, 288))
    two.paste(dog.crop((200, 0, 344, 288)), (0, 0))
    two.paste(parrot.crop((90, 0, 234, 288)), (144, 0))
    two.save(tmp_path / "two.png")
    page = Page(chromium, address)
    page.upload(tmp_path / "two.png")
    page.wait("img")
    page.write("Labels", "a car, a dog, a tree, a parrot, a cat")
    page.wait("button.primary", "Classify").click()
    page.wait("p", "Click a label")
    page.wait("button.confidence-set", "a dog").click()
    assert "“a dog”" in page.wait("p[role=status]", "Looking for").text
    page.save("page_explaining")
    heat = page.heat_of("a dog")
    middle = heat.shape[1] // 2
    assert heat[:, :middle].sum() > 0.8 * heat.sum()
    page.save("page_explained")
    page.wait("button.confidence-set", "a parrot").send_keys(Keys.ENTER)
    heat = page.heat_of("a parrot")
    assert heat[:, middle:].sum() > 0.8 * heat.sum()
    page.save("page_explained_by_key")
    page.wait("button.primary", "Classify").click()
    page.wait("p", "Click a label")
    assert not chromium.find_elements(By.TAG_NAME, "figure")


def test_texts_and_images_are_compared(chromium: webdriver.Chrome, address: str) -> None:
    page = Page(chromium, address)
    page.wait("button[role=tab]", "Compare").click()
    page.upload(*(ROOT / "examples" / f"{name}.png" for name in ("dog", "tree", "house")))
    page.wait("div[role=tabpanel]", "house")
    page.write("Texts", "a dog, a tree, a house")
    page.wait("button.primary", "Compare").click()
    figure = page.wait("div[role=tabpanel] img[src]")
    assert int(chromium.execute_script("return arguments[0].naturalWidth", figure)) > 300
    page.save("page_compare")


def test_words_find_images(chromium: webdriver.Chrome, address: str) -> None:
    page = Page(chromium, address)
    page.wait("button[role=tab]", "Search").click()
    page.write("Words", "a bicycle")
    page.wait("button.primary", "Search").click()
    first = page.wait("button.thumbnail-item img, .grid-container img")
    assert int(chromium.execute_script("return arguments[0].naturalWidth", first)) > 50
    assert "bicycle" in page.wait(".caption-label").text
    page.save("page_search")


def test_more_like_one_of_the_images_found(chromium: webdriver.Chrome, address: str) -> None:
    page = Page(chromium, address)
    page.wait("button[role=tab]", "Search").click()
    page.write("Words", "a dog - a cat")
    page.wait("button", "More like the one chosen").click()
    assert "Choose one" in page.wait(".toast-body", "Choose one").text
    page.wait("button.primary", "Search").click()
    page.wait(".grid-container button.thumbnail-item", "dog.png").click()
    page.wait("button.preview, .preview")
    page.wait("button", "More like the one chosen").click()
    WebDriverWait(chromium, 60).until(lambda _: page.found() and "dog.png" not in page.found())
    assert page.found()[0] == "cat.png"
    page.save("page_more")


def test_a_mistake_is_explained(chromium: webdriver.Chrome, address: str) -> None:
    page = Page(chromium, address)
    page.upload(ROOT / "examples" / "dog.png")
    page.wait("img")
    page.write("Labels", "a dog, a dog")
    page.wait("button.primary", "Classify").click()
    assert "given twice" in page.wait(".toast-body", "given twice").text
    page.save("page_mistake")


def test_nothing_is_fetched_from_elsewhere(chromium: webdriver.Chrome, address: str) -> None:
    Page(chromium, address)
    script = (
        "return performance.getEntriesByType('resource').map(e => [e.name, e.responseStatus, e.transferSize])"
    )
    loaded = [name for name, status, size in chromium.execute_script(script) if status or size]
    assert loaded
    assert all(name.startswith(address.rstrip("/")) for name in loaded), loaded
