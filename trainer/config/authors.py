"""What the authors' own scripts set for the recipes, and where a recipe departs from them.

Values are in this project's settings and units: a moving average that decays by 0.9999 in each step of 200 pictures has
a half-life of 1.386 million pictures. Recipes that are not here follow a paper whose authors have published no script
for it, or none that could be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from trainer.config.config import Config
from trainer.core.fields import setting_leaves


@dataclass(frozen=True)
class Script:
    """An authors' script."""

    source: str
    """Repository, revision, file, and what of it."""
    sets: Mapping[str, object]
    """By the names of our settings."""
    otherwise: Mapping[str, str] = field(default_factory=dict)
    """Where the recipe departs: by a setting of `sets`, or by a subject that is no setting, why, or how."""

    def departures(self, config: Config) -> Iterator[tuple[str, str, str]]:
        """Yield (setting or subject, what the authors have, why) where settings depart; no reason: "" (a mistake)."""
        here = {name: value for name, _, value in setting_leaves(config)}
        for name, theirs in self.sets.items():
            if not same(here[name], theirs):
                yield name, str(theirs), self.otherwise.get(name, "")
        for subject, why in self.otherwise.items():
            if subject not in self.sets:
                yield subject, "", why


def same(here: object, theirs: object) -> bool:
    """Compare settings; half-lives that come from a decay to one hundredth, other numbers to rounding."""
    if isinstance(here, float) and isinstance(theirs, float):
        return math.isclose(here, theirs, rel_tol=1e-2 if theirs > 1e5 else 1e-9)
    return here == theirs


def half_life(decay: float, images: int) -> float:
    """Return the pictures after which half is forgotten, of a decay by each step of so many pictures."""
    return images * math.log(0.5) / math.log(decay)


ADAM_00_09 = {"optimizer.beta1": 0.0, "optimizer.beta2": 0.9}
ADAM_00_0999 = {"optimizer.beta1": 0.0, "optimizer.beta2": 0.999}
NO_AVERAGE = "they keep no moving average; samples and metrics here are those of one"
STRAIGHT = "falls in a straight line there, along half a cosine here"
ADA_BORDERS = (
    "where a picture is warped, points beyond its border are mirrored after it was upsampled, there before, with a "
    "padding that the host must compute from the batch: the outer five pixels can differ"
)
LAZY = "lazy penalties are a part of the loss here; there each has an optimizer step of its own, and Adam is rescaled"


def stylegan2(
    width: int, batch: int, deviation: int, gamma: float, half_life_images: float, ramp: float, layers: int
) -> dict[str, object]:
    """Return what a configuration of StyleGAN2-ADA's train.py sets; `width` is of the layer at the picture's side."""
    return {
        "batch_size": batch,
        "optimizer.g_lr": 0.0025,
        "optimizer.d_lr": 0.0025,
        "optimizer.beta1": 0.0,
        "optimizer.beta2": 0.99,
        "optimizer.eps": 1e-8,
        "optimizer.ema_half_life_images": half_life_images,
        "optimizer.ema_ramp": ramp,
        "network.z_dim": 512,
        "network.g_channels": width,
        "network.d_channels": width,
        "network.max_channels": 512,
        "network.mapping_layers": layers,
        "network.mbstd_group": deviation,
        "network.style_mixing": 0.9,
        "penalties.r1.weight": gamma,
        "penalties.r1.every": 16,
        "penalties.path_length.weight": 2.0,
        "penalties.path_length.every": 4,
    }


ADA = {
    "augment.kind": "ada",
    "augment.pipe": "bgc",
    "augment.p": 0.0,
    "augment.target": 0.6,
    "augment.interval": 4,
    "augment.speed_images": 500_000,
}
STYLEGAN3 = "NVlabs/stylegan3 c233a91, train.py and docs/configs.md"
STYLEGAN3_256 = {
    "batch_size": 32,
    "optimizer.g_lr": 0.0025,
    "optimizer.d_lr": 0.002,
    "optimizer.beta1": 0.0,
    "optimizer.beta2": 0.99,
    "optimizer.eps": 1e-8,
    "optimizer.ema_half_life_images": 10_000.0,
    "optimizer.ema_ramp": 0.05,
    "network.z_dim": 512,
    "network.g_channels": 128,  # of T; R has twice as many by itself
    "network.d_channels": 128,
    "network.max_channels": 512,
    "network.mapping_layers": 2,
    "network.mbstd_group": 4,
    "penalties.r1.weight": 2.0,
    "penalties.r1.every": 16,
    "penalties.path_length.weight": 0.0,
} | ADA
STYLEGAN3_DEPARTS = {
    "regularisation": LAZY,
    "borders": ADA_BORDERS,
    "running magnitudes": "are moved once a step here, after it, and averaged; there before each pass of G, and copied",
}
STYLEGAN2_ADA = "NVlabs/stylegan2-ada-pytorch d72cc7d, train.py"


def r3gan(batch: int, widest: int, gamma: float, p: float, half_life_images: float = 5e5) -> dict[str, object]:
    """Return what a preset of R3GAN's train.py sets."""
    return {
        "batch_size": batch,
        "optimizer.g_lr": 2e-4,
        "optimizer.d_lr": 2e-4,
        "optimizer.lr_final": 0.25,
        "optimizer.beta1": 0.0,
        "optimizer.beta2": 0.9,
        "optimizer.beta2_final": 0.99,
        "optimizer.eps": 1e-8,
        "optimizer.decay_images": 20_000_000,
        "optimizer.ema_half_life_images": 0.0,
        "optimizer.ema_half_life_final": half_life_images,
        "optimizer.ema_ramp": 0.0,
        "network.z_dim": 64,
        "network.max_channels": widest,
        "penalties.r1.weight": gamma,
        "penalties.r1.final": gamma / 10,
        "penalties.r2.weight": gamma,
        "penalties.r2.final": gamma / 10,
        "augment.kind": "ada",
        "augment.pipe": "bgco",
        "augment.colour_share": 0.5,
        "augment.p": 0.0,
        "augment.p_final": p,
        "augment.adaptive": False,
    }


R3 = "brownvc/R3GAN 19a7ddf, train.py and training/training_loop.py"
R3_DEPARTS = {"borders": ADA_BORDERS}

BIGGAN = "ajbrock/BigGAN-PyTorch 9845943, scripts/launch_cifar_ema.sh and utils.py"
BIGGAN_32: dict[str, object] = {
    "batch_size": 50,
    "d_steps": 4,
    "optimizer.g_lr": 2e-4,
    "optimizer.d_lr": 2e-4,
    **ADAM_00_0999,
    "optimizer.eps": 1e-8,
    "optimizer.ema_half_life_images": half_life(0.9999, 200),
    "network.z_dim": 128,
    "network.g_channels": 64,
    "network.d_channels": 64,
    "penalties.orthogonal_g.weight": 0.0,
}
BIGGAN_32_DEPARTS = {
    "attention": "the CIFAR-10 script has none; here both networks attend at 16 x 16",
    "z": "the CIFAR-10 script gives z to the first layer alone, and each BatchNorm a class embedding of its own; here "
    "each block sees a part of z, and a shared embedding, as in the paper at 128 px",
    "first weights": "N(0, 0.02) in the CIFAR-10 script, orthogonal here as in the paper",
    "moving average": "begins after 1,000 steps there; here its half-life is at most a twentieth of the pictures seen",
}
LATE_AVERAGE = "begins after 20,000 steps there; here its half-life is at most a twentieth of the images"
BIGGAN_128: dict[str, object] = {
    "batch_size": 2048,
    "d_steps": 1,
    "optimizer.g_lr": 1e-4,
    "optimizer.d_lr": 4e-4,
    **ADAM_00_0999,
    "optimizer.eps": 1e-6,
    "optimizer.ema_half_life_images": half_life(0.9999, 2048),
    "penalties.orthogonal_g.weight": 0.0,
}
FEW_SHOT = {"augment.kind": "diffaugment", "augment.policy": "translation,cutout", "flip": True}

SNGAN = "pfnet-research/sngan_projection e84b1a5, configs/"
SNGAN_NETWORKS: dict[str, object] = {
    "batch_size": 64,
    "d_steps": 5,
    "objective": "hinge",
    "optimizer.g_lr": 2e-4,
    "optimizer.d_lr": 2e-4,
    "network.z_dim": 128,
    **ADAM_00_09,
}
SNGAN_DEPARTS = {"learning rate": "falls to 0 in a straight line there, and stays here", "moving average": NO_AVERAGE}

WGAN_GP = "igul222/improved_wgan_training fa66c57"
WGAN_GP_NETWORKS: dict[str, object] = {
    "batch_size": 64,
    "d_steps": 5,
    "objective": "wasserstein",
    "penalties.wgan_gp.weight": 10.0,
    "network.z_dim": 128,
    **ADAM_00_09,
}
SAGAN: dict[str, object] = {
    "batch_size": 256,  # 64 on each of 4 GPUs
    "d_steps": 1,
    "objective": "hinge",
    "optimizer.g_lr": 1e-4,
    "optimizer.d_lr": 4e-4,
    **ADAM_00_0999,
    "network.z_dim": 128,
    "network.g_channels": 64,
    "network.d_channels": 64,
}
SAGAN_DEPARTS = {
    "optimizer.beta2": "0.9 as in the paper (§4); the script leaves TensorFlow's default",
    "moving average": NO_AVERAGE,
}

SCRIPTS: Mapping[str, Script] = {
    "wgan-gp-32": Script(
        f"{WGAN_GP}, gan_cifar_resnet.py without labels",
        WGAN_GP_NETWORKS
        | {
            "g_batches": 2,
            "optimizer.g_lr": 2e-4,
            "optimizer.d_lr": 2e-4,
            "optimizer.lr_final": 0.0,
            "optimizer.decay_images": 32_000_000,  # 100,000 steps of 5 x 64
            "network.g_channels": 128,
            "network.d_channels": 128,
        },
        {"learning rate": STRAIGHT, "moving average": NO_AVERAGE},
    ),
    "wgan-gp-64": Script(
        f"{WGAN_GP}, gan_64x64.py",
        WGAN_GP_NETWORKS
        | {"g_batches": 1, "optimizer.g_lr": 1e-4, "optimizer.d_lr": 1e-4}
        | {"network.g_channels": 64, "network.d_channels": 64},
        {"moving average": NO_AVERAGE},
    ),
    "sngan-32": Script(
        f"{SNGAN}sn_cifar10_unconditional.yml",
        SNGAN_NETWORKS | {"g_batches": 2, "network.g_channels": 256, "network.d_channels": 128},
        SNGAN_DEPARTS,
    ),
    "projection-64": Script(
        f"{SNGAN}sn_projection_64.yml",
        SNGAN_NETWORKS | {"g_batches": 1, "network.g_channels": 64, "network.d_channels": 64},
        {"learning rate": "falls to 0 over the last 50,000 steps there, and stays here", "moving average": NO_AVERAGE},
    ),
    "sagan-64": Script(
        "brain-research/self-attention-gan ad9612e, model.py",
        SAGAN,
        SAGAN_DEPARTS | {"labels": "the networks there are told classes, at 128 px"},
    ),
    "sagan-128": Script("brain-research/self-attention-gan ad9612e, model.py", SAGAN, SAGAN_DEPARTS),
    "biggan-32": Script(BIGGAN, BIGGAN_32, BIGGAN_32_DEPARTS),
    "biggan-128": Script(
        "ajbrock/BigGAN-PyTorch 9845943, scripts/launch_BigGAN_bs256x8.sh",
        BIGGAN_128 | {"network.z_dim": 120, "network.g_channels": 96, "network.d_channels": 96},
        {"moving average": LATE_AVERAGE},
    ),
    "biggan-deep-128": Script(
        "ajbrock/BigGAN-PyTorch 9845943, scripts/launch_BigGAN_deep.sh",
        BIGGAN_128 | {"network.z_dim": 128, "network.g_channels": 128, "network.d_channels": 128},
        {"moving average": LATE_AVERAGE},
    ),
    "unet-128": Script(
        "boschresearch/unetgan 37adcf0, training_scripts/train_celeba.sh",
        {
            "batch_size": 50,
            "d_steps": 1,
            "optimizer.g_lr": 5e-5,
            "optimizer.d_lr": 2e-4,
            **ADAM_00_0999,
            "optimizer.eps": 1e-6,
            "optimizer.ema_half_life_images": half_life(0.9999, 50),
            "network.z_dim": 126,  # 128, of which six equal parts are used
            "network.g_channels": 64,
            "network.d_channels": 64,
            "penalties.orthogonal_g.weight": 0.0,
        },
        {
            "attention": "the script has none; here the generator attends at 64 x 64, as BigGAN's does",
            "CutMix": "rises with a probability to one half over 20 epochs there; here it is in every update",
            "moving average": "begins after 21,000 steps there; here its half-life is at most a 20th of the images",
        },
    ),
    "msg-gan-64": Script(
        "akanimax/msg-gan-v1 35d50f7, sourcecode/train.py with depth 5, and README.md",
        {
            "batch_size": 32,
            "d_steps": 1,
            "objective": "relativistic-hinge",
            "optimizer.g_lr": 3e-4,
            "optimizer.d_lr": 3e-4,
            "optimizer.beta1": 0.0,
            "optimizer.beta2": 0.99,
            "network.z_dim": 256,
            "network.g_channels": 128,
            "network.d_channels": 128,
            "network.max_channels": 256,
            "network.g_spectral_norm": True,
            "network.d_spectral_norm": True,
        },
        {
            "deviation": "over the batch for each place there, over groups of 8 and averaged over places here",
            "first biases": "are drawn there, and 0 here",
            "z": "G's is drawn anew there, and is that of D's update here",
            "moving average": NO_AVERAGE,
        },
    ),
    "diffaugment-32": Script(
        "mit-han-lab/data-efficient-gans 0b63395, DiffAugment-biggan-cifar/scripts/DiffAugment-biggan-cifar10.sh",
        BIGGAN_32 | FEW_SHOT,
        BIGGAN_32_DEPARTS,
    ),
    "lecam-32": Script(
        "google/lecam-gan f9af948, biggan_cifar/scripts/lc-DiffAugment-biggan-cifar10.sh",
        BIGGAN_32 | FEW_SHOT | {"penalties.lecam.weight": 0.3},
        BIGGAN_32_DEPARTS | {"running means": "count from step 1,000 there, from the first one here"},
    ),
    "stylegan2-256": Script(
        f"{STYLEGAN2_ADA}, configuration paper256 without augmentation",
        stylegan2(64, 64, 8, 1.0, 20_000.0, 0.0, 8),
        {"regularisation": LAZY},
    ),
    "stylegan2-ada-64": Script(
        f"{STYLEGAN2_ADA}, configuration auto of 64 px on one GPU",
        stylegan2(256, 32, 4, 0.0256, 10_000.0, 0.05, 2) | ADA,
        {"regularisation": LAZY, "borders": ADA_BORDERS},
    ),
    "stylegan2-ada-256": Script(
        f"{STYLEGAN2_ADA}, configuration auto of 256 px on two GPUs",
        stylegan2(64, 32, 4, 0.4096, 10_000.0, 0.05, 2) | ADA,
        {
            "penalties.r1.weight": "rounded",
            "regularisation": LAZY,
            "borders": ADA_BORDERS,
        },
    ),
    "stylegan3-t-256": Script(
        f"{STYLEGAN3}, configuration stylegan3-t with a batch of 32 and gamma 2", STYLEGAN3_256, STYLEGAN3_DEPARTS
    ),
    "stylegan3-r-256": Script(
        f"{STYLEGAN3}, configuration stylegan3-r with a batch of 32 and gamma 2",
        STYLEGAN3_256 | {"augment.blur_sigma": 10.0, "augment.blur_images": 200_000},
        STYLEGAN3_DEPARTS,
    ),
    "apa-256": Script(
        "EndlessSora/DeceiveD 042c5c4, train.py, configuration auto of 256 px on two GPUs",
        stylegan2(64, 32, 4, 0.4096, 10_000.0, 0.05, 2)
        | {"augment.apa": True, "augment.kind": "none", "augment.target": 0.6, "augment.interval": 4}
        | {"augment.speed_images": 500_000},
        {"penalties.r1.weight": "rounded", "regularisation": LAZY},
    ),
    "projected-256": Script(
        "autonomousvision/projected-gan e1c246b, train.py, configuration fastgan, and pg_modules/",
        {
            "batch_size": 64,
            "objective": "hinge",
            "optimizer.g_lr": 2e-4,
            "optimizer.d_lr": 2e-4,
            "optimizer.beta1": 0.0,
            "optimizer.beta2": 0.99,
            "optimizer.ema_half_life_images": 20_000.0,
            "optimizer.ema_ramp": 0.0,
            "network.z_dim": 256,
            "network.d_channels": 64,
            "network.features_side": 224,
            "augment.kind": "diffaugment",
            "augment.policy": "color,translation,cutout",
        },
        {"features": "of EfficientNet-Lite0 there; here only with network.features_file, else of a random VGG"},
    ),
    "r3gan-32": Script(f"{R3}, CIFAR10", r3gan(512, 768, 0.05, 0.55, 5e6), R3_DEPARTS),
    "r3gan-64": Script(f"{R3}, FFHQ-64", r3gan(256, 768, 2.0, 0.3), R3_DEPARTS),
    "r3gan-256": Script(f"{R3}, FFHQ-256", r3gan(256, 768, 150.0, 0.3), R3_DEPARTS),
}
