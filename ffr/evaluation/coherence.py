"""What vectors say of answers, with any encoder of texts and images into one space.

Fragment order coherence, and how like its query the fragment is.
"""

from __future__ import annotations

from ffr.dialogue import Example, Fragment
from ffr.embedding import Encoder
from ffr.errors import DataError
from ffr.metrics import FragmentOrderCoherence, QueryFragmentSimilarity
from ffr.metrics.functional import fragment_elements


class CoherenceMeter:
    """Mean coherence of predicted fragments, and their mean likeness to their queries.

    Figures of different encoders cannot be compared.

    Args:
        encoder: Makes the vectors.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._coherence = FragmentOrderCoherence()
        self._similarity = QueryFragmentSimilarity()

    def add(self, example: Example, predicted: Fragment) -> None:
        """Adds an answer to a query whose true answer is known.

        Args:
            example: Dialogue, query and true answer.
            predicted: The ids that were answered; those that the dialogue lacks are left out.

        Raises:
            DataError: where the encoder gives vectors that hold no finite numbers.
        """
        assert example.fragment is not None
        dialogue = example.dialogue
        locations = list(example.image_locations())
        utterance_ids = [
            item for item in predicted.utterance_ids if item < len(dialogue.utterances)
        ]
        image_ids = [item for item in predicted.image_ids if item < len(locations)]
        texts = self._encoder.embed_texts(
            [example.query, *(dialogue.utterances[item].text for item in utterance_ids)]
        )
        # an empty list of images has no width of its own
        images = (
            self._encoder.embed_images([locations[item] for item in image_ids])
            if image_ids
            else texts[:0]
        )
        vectors = texts.float().cpu(), images.float().cpu()
        if not all(part.isfinite().all() for part in vectors):
            raise DataError(
                f"the encoder {self._encoder.name} gives vectors with NaN or infinity for dialogue "
                f"{dialogue.id!r}; "
                "take another --encoder"
            )
        query, utterances = vectors[0][0], vectors[0][1:]
        hosts = [dialogue.image_utterance_ids[item] for item in image_ids]
        placed = utterance_ids, utterances, hosts, vectors[1]
        is_empty = example.fragment.is_empty
        self._coherence.update(*placed, is_target_empty=is_empty)
        self._similarity.update(query, fragment_elements(*placed), is_target_empty=is_empty)

    def summary(self) -> dict[str, object]:
        """The means, over how many answers, and with which encoder."""
        num = int(self._coherence.num_samples)
        return {
            "mean": float(self._coherence.compute()) if num else None,
            "query_similarity": float(self._similarity.compute()) if num else None,
            "num_answers": num,
            "encoder": self._encoder.name,
            "encoder_fingerprint": self._encoder.fingerprint,
        }
