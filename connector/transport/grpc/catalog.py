"""``CatalogService``: a provider's own datasets, for who wants to negotiate about one."""

from __future__ import annotations

from connector._pb.dataspace.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from connector.errors import NotFound
from connector.ports.datasets import DatasetStore


class CatalogServicer(catalog_pb2_grpc.CatalogServiceServicer):
    def __init__(self, datasets: DatasetStore) -> None:
        self._datasets = datasets

    async def GetDataset(
        self, request: catalog_pb2.GetDatasetRequest, context: object
    ) -> catalog_pb2.GetDatasetResponse:
        published = await self._datasets.get(request.dataset_id)
        if published is None:
            raise NotFound("there is no such dataset")
        return catalog_pb2.GetDatasetResponse(record=published.record)
