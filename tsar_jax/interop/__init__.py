"""Arrays to and from the files of the original PyTorch releases, without PyTorch.

`torch_files` reads what `torch.save` wrote without running anything that a file asks for;
`torch_writer` writes what PyTorch loads; `naming` finds a network's arrays in a file. Each family
of systems maps between its release's order and layout and ours in its own `release` module.
"""
