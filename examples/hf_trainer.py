"""Trains a transformers model with the Hugging Face Trainer on a curation run: python examples/hf_trainer.py RUN OUT

Position ids that begin anew in each document keep attention within it. `shift_labels` are targets that are shifted
already, as those of the loader are. Resuming is `skip_to`: what the Trainer skips batch by batch is computed.
"""

import sys

from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

import training


def as_inputs(batch):
    return {
        "input_ids": batch.tokens, "position_ids": batch.position_ids, "labels": batch.targets,
        "shift_labels": batch.targets,
    }  # fmt: skip


class StreamTrainer(Trainer):
    """A Trainer that reads from a loader of training.dataset."""

    def __init__(self, *args, loader, **options):
        super().__init__(*args, train_dataset=loader, callbacks=[SkipToStep(loader)], **options)

    def get_train_dataloader(self):
        return self.train_dataset


class SkipToStep(TrainerCallback):
    """Begins at the step that the Trainer resumes from."""

    def __init__(self, loader):
        self.loader = loader

    def on_train_begin(self, args, state, control, **_):
        self.loader.skip_to(state.global_step)


def main(run: str, out: str, steps: int = 4, resume: bool = False) -> Trainer:
    options = TrainingArguments(
        out, max_steps=steps, gradient_accumulation_steps=2, per_device_train_batch_size=4, learning_rate=1e-2,
        logging_steps=1, save_steps=2, save_only_model=False, ignore_data_skip=True, report_to=[], seed=17,
        lr_scheduler_type="constant", disable_tqdm=True,
    )  # fmt: skip
    set_seed(options.seed)
    loader = training.dataset(
        run, seq_len=64, global_batch=8, accumulation=options.gradient_accumulation_steps,
        rank=options.process_index, world=options.world_size, transform=as_inputs,
    )  # fmt: skip
    sizes = LlamaConfig(
        vocab_size=loader.data.manifest.tokenizer.vocab, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    trainer = StreamTrainer(LlamaForCausalLM(sizes), options, loader=loader)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


if __name__ == "__main__":
    history = main(sys.argv[1], sys.argv[2]).state.log_history
    print([entry["loss"] for entry in history if "loss" in entry])
