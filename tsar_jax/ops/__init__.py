"""Fast forms of convolutions, pools and wide products, beside their plain forms."""
