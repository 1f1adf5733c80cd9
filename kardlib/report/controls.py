"""Controls of a notebook: menus and sliders where somebody watches, elsewhere what they show at rest."""

import os
from collections.abc import Callable
from typing import Any

from IPython.display import Javascript, display

# ipywidgets draws a slider's label without telling a screen reader whose it is, and JupyterLab takes the arrows up and
# down to go to another cell.
LEAD_KEYS = Javascript("""
document.addEventListener("focusin", () => {
  for (const control of document.querySelectorAll(".widget-slider [role=slider], .widget-dropdown select"))
    control.dataset.lmSuppressShortcuts = true;
  for (const slider of document.querySelectorAll(".widget-slider"))
    for (const part of slider.querySelectorAll("[role=slider], [contenteditable]"))
      part.setAttribute("aria-label", slider.querySelector(".widget-label").textContent);
});
""")


def is_watched() -> bool:
    """Whether a person looks at this kernel: a Jupyter server names its sessions, VS Code and Colab name themselves.

    Only then are widgets worth showing: a committed notebook cannot move them. `reproduce` names its sessions "".
    """
    session = os.environ.get("JPY_SESSION_NAME")
    return bool(session) if session is not None else not {"VSCODE_PID", "COLAB_RELEASE_TAG"}.isdisjoint(os.environ)


def explore(show: Callable[..., object], **controls: Any) -> None:
    """Call `show` with what the controls say: once, or where somebody watches whenever one is moved.

    A control is a menu, a list of (label, value) whose first is chosen, or a slider, (lowest, highest, now) in whole
    numbers or (lowest, highest, now, step) in others. A sign says while `show` works.
    """
    if not is_watched():
        show(**{name: of[0][1] if isinstance(of, list) else of[2] for name, of in controls.items()})
        return
    from ipywidgets import HTML, Dropdown, FloatSlider, IntSlider, VBox, interactive

    sign = HTML()
    widgets: dict[str, Any] = {}
    for name, of in controls.items():
        if isinstance(of, list):
            widgets[name] = Dropdown(options=of)
        else:
            (low, high, now, step), kind = (of, FloatSlider) if len(of) == 4 else ((*of, 1), IntSlider)
            widgets[name] = kind(now, min=low, max=high, step=step, continuous_update=False)  # moved when it is let go
        widgets[name].description = name.replace("_", " ")

    def work(**values: Any) -> None:
        sign.value = "<i role=status>Working …</i>"
        try:
            show(**values)
        finally:
            sign.value = "<i role=status>Done.</i>"

    moved = interactive(work, **widgets)
    *above, shown = moved.children
    display(LEAD_KEYS, VBox([*above, sign, shown]))
    moved.update()
