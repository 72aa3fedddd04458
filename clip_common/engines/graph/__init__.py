"""Writes the two towers as ONNX graphs, from a config and weights. They are mathematically equal to the
Paddle model but need less computation.

The result depends on one token only: the class token, the mean token of the attention pool, or the end token
of a text. So the last attention has a single query, and does not need the keys and values of the whole
sequence. With the sequence x, and the projections q, k, v of one head,

    softmax(q (x Wk + bk)') (x Wv + bv)  =  (softmax((q Wk') x') x) Wv + bv

because q bk' is the same for every token, and the weights of a softmax add up to one. Everything after that
attention runs on one token, too. On ViT-B/32 and both ResNets this saves about a twelfth of the computation
of the image tower. Further, BatchNorm is folded into the convolution before it, the attention scale into the
queries, and the factor 1.702 of QuickGELU into the weights around it, which leaves SiLU. In BERT, one matrix
product computes queries, keys and values.

`builder.py` writes nodes and weights, `layers.py` has the shared layers, each kind of tower has its own file,
and `towers.py` selects the tower for a config. Nothing here imports Paddle.
"""
