"""A network in the hands of others: files that need no nnas, each proven before anybody gets it.

    a network and Samples (what the supernet gave) --> weights.written     a state_dict, .safetensors or .pt
                                                   --> programs.exported   a program of torch.export
                                                   --> onnx_file.written   a model of ONNX

Begin with ``comparison``: a ``Sample`` is a batch, and what the supernet made of it with the chosen architecture. Every
writer gives bytes that were read back, run on all samples, and compared; else it raises, and nothing is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnas_core._handing_on import hand_on

if TYPE_CHECKING:
    from nnas_core.delivery.comparison import Sample as Sample
    from nnas_core.delivery.comparison import require_equal as require_equal
else:
    __getattr__, __dir__, __all__ = hand_on(__name__, {"Sample": "comparison", "require_equal": "comparison"})
