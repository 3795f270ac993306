"""Without a browser the tests of this folder fail, and one line says what to install."""

from types import SimpleNamespace

import pytest

from browser.chromium import NoBrowser, find_or_install


def test_where_there_is_no_browser_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing is installed, and apt-get neither
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_DOWNLOAD_HOST", "http://127.0.0.1:9")  # nobody listens there
    playwright = SimpleNamespace(chromium=SimpleNamespace(executable_path=str(tmp_path / "chrome")))
    with pytest.raises(NoBrowser, match=r"^no browser: install chromium or google-chrome [^\n]*$"):
        find_or_install(playwright)
