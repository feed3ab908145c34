"""Writes 10^9 tokens in the format of each loader that benchmarks/loader.py compares, and opens each for reading.

Functions import what they need themselves: those of the peers run in an environment that holds the peers and torch.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

T, BATCH = 2048, 8  # tokens of a sequence, sequences of a batch
SHARD = 50_000_000  # tokens
VOCAB = 16_384
STEP = 4_000_000  # tokens that litdata is handed at a time
PEERS = ("litdata", "streaming", "datasets")


def source_files() -> Iterator[str]:
    """Sources of the installed packages, in the order of their names."""
    for path in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if text.strip():
            yield text


def write_shards(folder: Path, wanted: int) -> None:
    """The shards, and the same stream as one file of uint16."""
    import hashlib

    import numpy as np

    from curation import shards
    from curation.packing.tokenizer.encode import Encoder
    from curation.packing.tokenizer.train_tokenizer import train_bpe

    texts: list[str] = []
    size = 0
    for text in source_files():
        texts.append(text)
        size += len(text)
        if size > 80 << 20:
            break
    data = train_bpe(texts[::20], VOCAB)
    encoder = Encoder(data)
    ids = [i.astype(np.uint16) for i in encoder.encode_batch(texts)]
    root = folder / "shards"
    (root / "train" / "code").mkdir(parents=True)
    (root / "tokenizer.json").write_bytes(data)
    entries: list[shards.ShardEntry] = []
    number = done = 0
    with open(folder / "tokens.bin", "wb") as stream:
        while done < wanted:
            name = f"train/code/{len(entries):05d}.arrow"
            with open(root / name, "wb") as f:
                writer = shards.ShardWriter(
                    f,
                    vocab_size=VOCAB,
                    eos=encoder.eos,
                    scratch_dir=str(folder),
                    metadata={"tokenizer": encoder.sha256},
                )
                filled = 0
                while filled < min(SHARD, wanted - done):
                    tokens = ids[number % len(ids)]
                    writer.add(tokens, number.to_bytes(16, "big"), None, None)
                    filled += len(tokens) + 1
                    number += 1
                info = writer.close()
            shards.open_shard(str(root / name)).tokens.tofile(stream)
            size = (root / name).stat().st_size
            sha = hashlib.sha256((root / name).read_bytes()).hexdigest()
            entries.append(shards.ShardEntry(name, info.documents, info.tokens, 0, sha, size))
            done += info.tokens
    tokenizer = shards.TokenizerInfo("tokenizer.json", encoder.sha256, VOCAB, encoder.eos, "bpe")
    for name, listed in (("manifest.json", entries), ("many.json", [entries[i % len(entries)] for i in range(20_000)])):
        made = shards.Manifest(tokenizer, {"train": {"code": shards.DomainShards(tuple(listed))}, "validation": {}})
        (root / name).write_bytes(made.dumps())


def cut_into_rows(folder: Path) -> Any:
    """The stream cut into rows of 2,049 tokens, one token shared, for formats that hold rows."""
    import numpy as np

    stream = np.memmap(folder / "tokens.bin", np.uint16, "r")
    return stream, (len(stream) - 1) // T


def read_stretch(path: str, start: int) -> Iterator[Any]:
    """A stretch of the stream, for litdata's writer."""
    import numpy as np
    import torch

    yield torch.from_numpy(np.fromfile(path, np.uint16, STEP, offset=2 * start))


def write_litdata(folder: Path) -> None:
    from functools import partial

    from litdata import optimize
    from litdata.streaming.item_loader import TokensLoader

    path = folder / "tokens.bin"
    optimize(
        fn=partial(read_stretch, str(path)),
        inputs=list(range(0, path.stat().st_size // 2, STEP)),
        output_dir=str(folder / "litdata"),
        chunk_size=(T + 1) * 8192,
        item_loader=TokensLoader(block_size=T + 1),
        num_workers=1,
        verbose=False,
    )


def write_streaming(folder: Path) -> None:
    from streaming import MDSWriter

    stream, count = cut_into_rows(folder)
    with MDSWriter(out=str(folder / "streaming"), columns={"tokens": f"ndarray:uint16:{T + 1}"}) as out:
        for i in range(count):
            out.write({"tokens": stream[i * T : i * T + T + 1]})


def write_datasets(folder: Path) -> None:
    import numpy as np
    import pyarrow as pa

    stream, count = cut_into_rows(folder)
    schema = pa.schema([("tokens", pa.list_(pa.uint16(), T + 1))])
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as f, pa.ipc.new_stream(f, schema) as writer:
        for start in range(0, count, 1000):
            taken = np.stack([stream[i * T : i * T + T + 1] for i in range(start, min(start + 1000, count))])
            column = pa.FixedSizeListArray.from_arrays(pa.array(taken.ravel()), T + 1)
            writer.write_batch(pa.RecordBatch.from_arrays([column], schema=schema))


def open_reader(name: str, folder: Path) -> Callable[[], Any]:
    """A function that gives the next batch: inputs and targets, [8, 2048] int64."""
    import numpy as np
    import torch

    torch.set_num_threads(1)

    if name in ("plain", "nanogpt"):
        path = folder / "tokens.bin"
        opened = np.memmap(path, np.uint16, "r")

        def random_places() -> Any:
            data = opened if name == "plain" else np.memmap(path, np.uint16, "r")
            at = torch.randint(len(data) - T, (BATCH,))
            x = torch.stack([torch.from_numpy(data[i : i + T].astype(np.int64)) for i in at])
            y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + T].astype(np.int64)) for i in at])
            return x, y

        return random_places
    if name in ("gristmill", "inline"):
        from training.data.open_dataset import dataset

        read_ahead = 8 if name == "gristmill" else 0
        shards = str(folder / "shards")
        return dataset(shards, seq_len=T, global_batch=BATCH, max_epochs=1e9, prefetch=read_ahead).__next__
    if name == "internal":
        from curation.shards import read_manifest
        from training.data.data_order import OrderLog
        from training.data.dataset import TokenDataset

        data = TokenDataset(read_manifest(str(folder / "shards")), 17, T, ["code"])
        log = OrderLog.new({"code": 1}, T, T, BATCH)
        place = iter(range(1 << 40))

        def next_batch() -> Any:
            i = next(place)
            return data.batch(log, i * BATCH, (i + 1) * BATCH)

        return next_batch

    if name == "litdata":
        from litdata import StreamingDataLoader, StreamingDataset
        from litdata.streaming.item_loader import TokensLoader

        streamed = StreamingDataset(
            str(folder / "litdata"), item_loader=TokensLoader(block_size=T + 1), shuffle=True, drop_last=True
        )
        batches = iter(StreamingDataLoader(streamed, batch_size=BATCH, num_workers=0))
        unpack = torch.Tensor.long
    elif name == "streaming":
        from streaming import StreamingDataset as Mosaic
        from torch.utils.data import DataLoader

        mosaic = Mosaic(local=str(folder / "streaming"), shuffle=True, batch_size=BATCH)

        def join(items: list[dict[str, Any]]) -> torch.Tensor:
            return torch.from_numpy(np.stack([i["tokens"] for i in items]).astype(np.int64))

        batches = iter(DataLoader(mosaic, batch_size=BATCH, num_workers=0, collate_fn=join))
        unpack = torch.Tensor.long
    else:
        import datasets

        table = datasets.Dataset.from_file(str(folder / "rows.arrow")).with_format("numpy").shuffle(seed=17)
        batches = (table[i : i + BATCH]["tokens"] for i in range(0, len(table) - BATCH, BATCH))

        def unpack(taken: Any) -> torch.Tensor:
            return torch.from_numpy(np.asarray(taken).astype(np.int64))

    def cut_rows() -> Any:
        tokens = unpack(next(batches))
        return tokens[:, :-1], tokens[:, 1:]

    return cut_rows
