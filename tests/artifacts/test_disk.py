import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.artifacts.disk import atomic_write


@given(st.text())
def test_atomic_write_replaces_the_file_or_leaves_it(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "new" / "figure.svg"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".part" and temporary.parent == path.parent
        temporary.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_bytes() == text.encode("utf-8", "surrogatepass")
    assert list(path.parent.iterdir()) == [path]
