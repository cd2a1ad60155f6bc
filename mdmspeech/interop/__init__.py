"""Other people's files. In: Hugging Face, GGUF, CTranslate2, PyTorch without pickle, ONNX weights,
CosyVoice2. Out: Hugging Face folders (`export`).

`release` is our own format, `sources` finds pretrained parts, `rules` says which of their tensors
is which of ours, `tensors` reads and writes safetensors.
"""
