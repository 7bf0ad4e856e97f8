"""Stores: folders of memory-mappable arrays that stages hand to one another. The format is in docs/stores.md."""

from shared.store.clean import free
from shared.store.find import find_store, refuse_as_output
from shared.store.folder import StoreFolder
from shared.store.manifest import ArrayFacts, Kind, Manifest, ModelFacts, ShardFacts, SlideFacts
from shared.store.parts import Parts
from shared.store.reader import StoreReader
from shared.store.whole import WholeReader
from shared.store.writer import StoreWriter

__all__ = [
    "ArrayFacts",
    "Kind",
    "Manifest",
    "ModelFacts",
    "Parts",
    "ShardFacts",
    "SlideFacts",
    "StoreFolder",
    "StoreReader",
    "StoreWriter",
    "WholeReader",
    "find_store",
    "free",
    "refuse_as_output",
]
