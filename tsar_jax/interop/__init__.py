"""Arrays to and from the files of the original PyTorch releases, without PyTorch.

`torch_files` reads files of `torch.save` without running code that they name; `torch_writer` writes
files that PyTorch loads; `naming` finds a network's arrays in a file. Each family of systems has a
`release` module that maps between the order and layout of its release's arrays and its own.
"""
