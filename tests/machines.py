"""The GPUs and machines that tests ask about; none of them need be here."""

from helpers.machine import GPU, Machine

H200 = GPU("NVIDIA H200", 143_771 * 2**20, (9, 0))
H100 = GPU("NVIDIA H100 80GB HBM3", 81_559 * 2**20, (9, 0))
B200 = GPU("NVIDIA B200", 183_359 * 2**20, (10, 0))
RTX_2080 = GPU("NVIDIA GeForce RTX 2080", 8 * 2**30, (7, 5))
RTX_3090 = GPU("NVIDIA GeForce RTX 3090", 24 * 2**30, (8, 6))
RTX_5090 = GPU("NVIDIA GeForce RTX 5090", 32 * 2**30, (12, 0))
V100 = GPU("Tesla V100-SXM2-16GB", 16 * 2**30, (7, 0))

ONE_H100 = Machine(gpus=(H100,), transformer_engine=True)
ONE_H200 = Machine(gpus=(H200,), transformer_engine=True)
TWO_H200 = Machine(gpus=(H200,) * 2, transformer_engine=True)
EIGHT_H200 = Machine(gpus=(H200,) * 8, transformer_engine=True)
BARE_H200 = Machine(gpus=(H200,) * 2, transformer_engine=False)
TWO_B200 = Machine(gpus=(B200,) * 2, transformer_engine=True)
ONE_2080 = Machine(gpus=(RTX_2080,), transformer_engine=True)
ONE_3090 = Machine(gpus=(RTX_3090,), transformer_engine=True)
