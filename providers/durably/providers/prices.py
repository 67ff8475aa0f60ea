"""The price of a call, from the list in the package ``genai-prices``. It makes no request."""

from __future__ import annotations

from durably.core.model import Usage

try:
    import genai_prices
except ImportError as error:
    raise ImportError(
        "prices need the package genai-prices: pip install 'durably[anthropic]' or 'durably[openai]'"
    ) from (error)

__all__ = ["price"]

BATCHED = 0.5
"""What a token in a batch costs beside one that is answered at once:
https://platform.claude.com/docs/en/build-with-claude/batch-processing and
https://platform.openai.com/docs/guides/batch."""


def price(
    usage: Usage, model: str, *, provider: str | None = None, url: str | None = None, batched: bool = False
) -> float | None:
    """Return the US dollars for a call, or ``None`` if the list does not know the model.

    Args:
        usage: The tokens of the call.
        model: The model, as the provider names it.
        provider: The provider's name in the list. Give this or ``url``.
        url: The provider's address.
        batched: Whether the call was in a batch.
    """
    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
    )
    try:
        if url is None:
            found = genai_prices.calc_price(tokens, model, provider_id=provider)
        else:
            found = genai_prices.calc_price(tokens, model, provider_api_url=url)
    except (LookupError, ValueError):  # not in the list, or counts that contradict each other
        return None
    return float(found.total_price) * (BATCHED if batched else 1.0)
