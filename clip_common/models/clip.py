"""The CLIP model: an image tower and a text tower with a shared embedding space (cf. OpenAI's `model.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ..config import BertConfig, ClipConfig, EfficientNetConfig, ResNetConfig, TextConfig, ViTConfig
from ..weights.mapped import release
from ..weights.schema import expected_shapes, require_match
from ..weights.tensor_names import State, is_linear, openai_name, to_openai
from .bert import Bert
from .efficientnet import EfficientNet
from .resnet import ModifiedResNet
from .transformer import Transformer
from .vit import VisionTransformer


class CLIP(nn.Layer):
    """A CLIP model.

    A new model is uninitialised; `load_dict` loads a state dict of any known layout, strictly.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = _image_tower(config)
        if isinstance(config.text, BertConfig):
            self.bert = Bert(config.text)
        else:
            self._build_causal_text_tower(config.text)
        self.text_projection = self.create_parameter([config.text.width, config.embed_dim])
        self.logit_scale = self.create_parameter(
            [], default_initializer=nn.initializer.Constant(math.log(1 / 0.07))
        )

    def _build_causal_text_tower(self, text: TextConfig) -> None:
        """Create OpenAI's text tower, whose tensors have no common prefix."""
        self.token_embedding = nn.Embedding(text.vocab_size, text.width)
        self.positional_embedding = self.create_parameter([text.context_length, text.width])
        self.transformer = Transformer(text.width, text.layers, text.heads, self.config.activation)
        self.ln_final = nn.LayerNorm(text.width)
        causal = np.triu(np.full([text.context_length, text.context_length], -np.inf, "float32"), k=1)
        self.register_buffer("causal_mask", paddle.to_tensor(causal), persistable=False)

    def encode_image(self, image: Tensor) -> Tensor:
        """Encode pixels, float32 [N, 3, R, R], to features, float32 [N, embed_dim], not normalised."""
        return self.visual(image)

    def encode_text(self, text: Tensor) -> Tensor:
        """Encode token ids, int64 [N, L], L <= `context_length`, to features [N, embed_dim], not normalised.

        Padding after the end token does not change the features: either attention is causal and the feature
        is read at the end token, or padding is masked and the feature is read at the first token.
        """
        if isinstance(self.config.text, BertConfig):
            return paddle.matmul(self.bert(text)[:, 0], self.text_projection)  # N L D -> N D
        length = text.shape[1]
        x = self.token_embedding(text) + self.positional_embedding[:length]  # N L D
        x = self.transformer(x, self.causal_mask[:length, :length])
        # The end token has the highest id of the vocabulary. Selecting its row by a one-hot product instead
        # of indexing keeps the exported graph simple.
        is_end = text.argmax(axis=-1, keepdim=True) == paddle.arange(length)  # N L
        x = paddle.matmul(is_end.astype(x.dtype).unsqueeze(1), x).squeeze(1)  # N 1 L, N L D -> N D
        return paddle.matmul(self.ln_final(x), self.text_projection)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled cosine similarities: logits per image [N, M] and per text [M, N]."""
        image_features = F.normalize(self.encode_image(image), axis=-1)
        text_features = F.normalize(self.encode_text(text), axis=-1)
        logits = self.logit_scale.exp() * paddle.matmul(image_features, text_features, transpose_y=True)
        return logits, logits.t()

    def set_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> tuple[list, list]:
        """Load a state dict of any known layout.

        Returns:
            Two empty lists, as Paddle returns the missing and the unexpected keys: here both are errors.

        Raises:
            WeightsError: a tensor is missing, extra or of another shape; the message names it.
        """
        self.load_openai(to_openai({name: np.asarray(value) for name, value in state_dict.items()}))
        return [], []

    def load_openai(self, state: Mapping[str, np.ndarray]) -> None:
        """Load numpy arrays in OpenAI's layout, strictly; they are converted to float32.

        Raises:
            WeightsError: a tensor is missing, extra or of another shape; the message names it.
        """
        self.take_openai(dict(state))

    def take_openai(self, state: State) -> None:
        """As `load_openai`, but consumes the state: each array is removed once it is copied, and its memory
        released, so that a large model is not in memory twice."""
        require_match(state, expected_shapes(self.config), self.config.name)
        for name, tensor in self._by_openai_name().items():
            taken = state.pop(name)
            value = taken.T if is_linear(name) else taken
            _fill(tensor, np.require(value, "float32", ["C", "ALIGNED"]))
            release(taken)

    def _by_openai_name(self) -> dict[str, Tensor]:
        return {openai_name(name): tensor for name, tensor in self.state_dict().items()}

    load_dict = set_state_dict
    set_dict = set_state_dict


def _image_tower(config: ClipConfig) -> nn.Layer:
    size, embed_dim = config.image_resolution, config.embed_dim
    match config.vision:
        case ViTConfig() as vision:
            return VisionTransformer(vision, size, embed_dim, config.activation)
        case ResNetConfig() as vision:
            return ModifiedResNet(vision, size, embed_dim)
        case EfficientNetConfig() as vision:
            return EfficientNet(vision, size, embed_dim)


def _fill(tensor: Tensor, value: np.ndarray) -> None:
    if tensor._is_initialized():
        tensor.set_value(value)
    else:  # created under LazyGuard: allocates its memory
        tensor.get_tensor().set(value, paddle.CPUPlace())
