"""To look at: spaces, architectures, runs and studies as plain data, and pictures made of it.

    view_file, view_run, view_study --> View --> stand_alone: an SVG file
                                             --> page_of: an HTML page
                                             --> Server: the page of a run that goes on

Begin with ``View``. Names are loaded when they are first used; nothing here needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.viewing.drawing import stand_alone as stand_alone
    from nnas_core.viewing.files import view_file as view_file
    from nnas_core.viewing.files import view_run as view_run
    from nnas_core.viewing.page import page_of as page_of
    from nnas_core.viewing.serving import Server as Server
    from nnas_core.viewing.studies import view_study as view_study
    from nnas_core.viewing.view import View as View
else:
    __getattr__, __dir__, __all__ = hand_on(
        __name__,
        {
            "Server": "serving",
            "View": "view",
            "page_of": "page",
            "stand_alone": "drawing",
            "view_file": "files",
            "view_run": "files",
            "view_study": "studies",
        },
    )
