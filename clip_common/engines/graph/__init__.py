"""The two towers as ONNX graphs, written from a config and weights: the model's arithmetic, rewritten exactly
into less of it.

What is read at the end is one token's: the class token, the pool's mean, the text's end token. So the last
attention has one query, and needs neither keys nor values of the sequence: with x the sequence, and one
head's projections q, k, v,

    softmax(q (x Wk + bk)') (x Wv + bv)  =  (softmax((q Wk') x') x) Wv + bv

since q bk' is the same for every token, and the weights of a softmax sum to one. Everything after that
attention runs on one token too. On ViT-B/32 and both ResNets this is about a twelfth of the image tower.
Further, BatchNorm is folded into the convolution before it, the scale of attention into the queries, and
1.702 of QuickGELU into the weights around it, which leaves SiLU. In a BERT every token sees every other, so
nothing is shared between texts; there queries, keys and values become one product.

`builder.py` writes nodes and weights, `layers.py` what towers share; then a file a tower, and `towers.py`,
which chooses. Nothing here imports Paddle.
"""
