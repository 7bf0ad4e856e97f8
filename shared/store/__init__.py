"""Stores: folders of memory-mappable arrays in which a stage leaves its result. docs/stores.md describes the format."""

from nuclei_segmentation.shared.store.clean import release_shared_memory
from nuclei_segmentation.shared.store.find import find_store, refuse_as_output
from nuclei_segmentation.shared.store.folder import StoreFolder
from nuclei_segmentation.shared.store.manifest import (
    ArrayMetadata,
    Kind,
    Manifest,
    ModelMetadata,
    ShardMetadata,
    SlideMetadata,
)
from nuclei_segmentation.shared.store.reader import StoreReader
from nuclei_segmentation.shared.store.shard_set import ShardSet
from nuclei_segmentation.shared.store.sharded_reader import ShardedReader
from nuclei_segmentation.shared.store.writer import StoreWriter

__all__ = [
    "ArrayMetadata",
    "Kind",
    "Manifest",
    "ModelMetadata",
    "ShardMetadata",
    "ShardSet",
    "ShardedReader",
    "SlideMetadata",
    "StoreFolder",
    "StoreReader",
    "StoreWriter",
    "find_store",
    "refuse_as_output",
    "release_shared_memory",
]
