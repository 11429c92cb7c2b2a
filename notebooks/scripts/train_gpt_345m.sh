#!/bin/bash
# A launch script as many teams keep one: copied from an example, changed in a hurry. Notebook 02 reads it.
set -e

DATA=${DATA:-/data/openwebtext_text_document}
OUT=${1:-/checkpoints/gpt_345m}

MODEL_ARGS=(
    --num-layers 24
    --hidden-size 1024
    --num-attention-heads 16
    --seq-length 1024
    --max-position-embeddings 1024
    --init-method-std 0.006
)

TRAINING_ARGS=(
    --micro-batch-size 1
    --global-batch-size 32
    --train-iters 100
    --lr 3.0e-4
    --min-lr 3.0e-5
    --lr-decay-style cosine
    --lr-warmup-iters 10
    --weight-decay 0.1
    --clip-grad 1.0
    --adam-beta2 0.95
    --fp16
)

DATA_ARGS=(
    --data-path $DATA
    --tokenizer-type GPT2BPETokenizer
    --vocab-file gpt2-vocab.json
    --merge-file gpt2-merges.txt
    --split 949,50,1
)

LOGGING_ARGS=(
    --log-interval 100
    --save $OUT
    --load $OUT
    --save-interval 10000
    --eval-interval 1000
    --eval-iters 10
    --wandb-project gpt-345m
    --wandb-exp-name first-try
)

torchrun --nproc-per-node 1 pretrain_gpt.py \
    "${MODEL_ARGS[@]}" \
    "${TRAINING_ARGS[@]}" \
    "${DATA_ARGS[@]}" \
    "${LOGGING_ARGS[@]}"
