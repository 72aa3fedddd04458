"""The two towers as ONNX graphs, written from a config and weights; mathematically equal to the Paddle model,
with less computation.

The result is read from one token: the class token, the mean of the attention pool, the end token of a text.
So the last attention has a single query, and needs neither keys nor values of the whole sequence: with x the
sequence, and q, k, v the projections of one head,

    softmax(q (x Wk + bk)') (x Wv + bv)  =  (softmax((q Wk') x') x) Wv + bv

because q bk' is the same for every token, and the weights of a softmax add up to one. Everything after that
attention runs on one token, too. On ViT-B/32 and both ResNets this saves about a twelfth of the image tower.
Furthermore, BatchNorm is folded into the convolution before it, the scale of attention into the queries, and
the 1.702 of QuickGELU into the weights around it, which leaves SiLU. In BERT, queries, keys and values are
computed by one matrix product.

`builder.py` writes nodes and weights, `layers.py` has the shared layers, each tower has its own file, and
`towers.py` selects the tower of a config. Nothing here imports Paddle.
"""
