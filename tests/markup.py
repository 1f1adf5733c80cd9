"""Pages of HTML as tests read them."""

from html.parser import HTMLParser
from pathlib import Path

LOADING = ("script", "link", "img", "iframe", "source", "object", "embed")


def read_tags(page: Path) -> list[tuple[str, dict[str, str]]]:
    """Every tag of a page with its attributes."""
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page.read_text("utf-8"))
    return tags


def check_that_it_can_be_sent(page: Path) -> None:
    """What a page loads is in it or lies in its folder, it fits a telephone, and each picture says what it shows."""
    tags = read_tags(page)
    sources = [found.get("src") or found.get("href") or found.get("data") for tag, found in tags if tag in LOADING]
    assert not [s for s in sources if s and not s.startswith("data:") and not (page.parent / s).is_file()]
    assert "@import" not in (text := page.read_text("utf-8")) and "url(http" not in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags
    alts = [found.get("alt") or "" for tag, found in tags if tag == "img"]
    assert all(len(alt.split()) > 4 and "No description" not in alt for alt in alts), alts
    ids = {found["id"] for _, found in tags if "id" in found}
    links = [found["href"] for tag, found in tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    assert not [link for link in links if "://" not in link and link[0] != "#" and "../" in link]
