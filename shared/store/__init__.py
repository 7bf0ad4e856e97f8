"""Stores: folders of memory-mappable arrays that stages hand to one another. The format is in docs/stores.md."""

from nuclei_segmentation.shared.store.clean import free
from nuclei_segmentation.shared.store.find import find_store, refuse_as_output
from nuclei_segmentation.shared.store.folder import StoreFolder
from nuclei_segmentation.shared.store.manifest import ArrayFacts, Kind, Manifest, ModelFacts, ShardFacts, SlideFacts
from nuclei_segmentation.shared.store.reader import StoreReader
from nuclei_segmentation.shared.store.shard_set import Parts
from nuclei_segmentation.shared.store.sharded_reader import WholeReader
from nuclei_segmentation.shared.store.writer import StoreWriter

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
