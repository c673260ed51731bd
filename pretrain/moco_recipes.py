"""Recipes of MoCo and of what it was compared with in its own papers: each value with its source.

[1] and the like are explained in `pretrain.cards.REFERENCES`.
"""

from pretrain.settings import Augmentation, Recipe, cite, vary

CODE = "[2] main_moco.py"
DEMO = "[4]"

VIEWS_V1 = cite(
    Augmentation,
    order=(("crop", "grayscale", "jitter", "flip"), CODE),
    crop_scale=((0.2, 1.0), CODE),
    crop_ratio=((3 / 4, 4 / 3), f"{CODE}: torchvision's default"),
    jitter=((0.4, 0.4, 0.4, 0.4), CODE),
    jitter_probability=(1.0, CODE),
    grayscale_probability=(0.2, CODE),
    blur_sigma=((0.1, 2.0), "unused"),
    blur_probability=(0.0, "[1] section 3.3: no blur among its augmentations"),
    flip_probability=(0.5, f"{CODE}: torchvision's default"),
    mean=((0.485, 0.456, 0.406), CODE),
    std=((0.229, 0.224, 0.225), CODE),
)
VIEWS_PLUS = vary(
    VIEWS_V1,
    order=(("crop", "jitter", "grayscale", "blur", "flip"), f"{CODE} --aug-plus"),
    jitter=((0.4, 0.4, 0.4, 0.1), f"{CODE} --aug-plus; [3] section 3: no stronger colours than these"),
    jitter_probability=(0.8, f"{CODE} --aug-plus"),
    blur_sigma=((0.1, 2.0), "[2] moco/loader.py; [3] section 3: the blur of [5]"),
    blur_probability=(0.5, f"{CODE} --aug-plus"),
)
VIEWS_CIFAR = vary(
    VIEWS_PLUS,
    order=(("crop", "flip", "jitter", "grayscale"), f"{DEMO} train_transform"),
    crop_scale=((0.08, 1.0), f"{DEMO} train_transform: torchvision's default"),
    jitter=((0.4, 0.4, 0.4, 0.1), f"{DEMO} train_transform"),
    jitter_probability=(0.8, f"{DEMO} train_transform"),
    grayscale_probability=(0.2, f"{DEMO} train_transform"),
    blur_sigma=((0.1, 2.0), "unused"),
    blur_probability=(0.0, f"{DEMO} train_transform: none"),
    mean=((0.4914, 0.4822, 0.4465), f"{DEMO} train_transform"),
    std=((0.2023, 0.1994, 0.2010), f"{DEMO} train_transform"),
)
AUG_V1, AUG_PLUS, AUG_CIFAR = VIEWS_V1.settings, VIEWS_PLUS.settings, VIEWS_CIFAR.settings

V1 = cite(
    Recipe,
    name="moco-v1-200ep",
    source="arXiv 1911.05722, section 4; arXiv 2003.04297, Table 1, first MoCo row",
    method=("moco", "[1] section 3"),
    symmetric=(False, "[1] Algorithm 1"),
    augmentation=VIEWS_V1,
    image_size=(224, "[1] section 3.3"),
    arch=("resnet50", "[1] section 4"),
    stem=("7x7", f"{CODE}: torchvision's ResNet"),
    zero_init_residual=(False, f"{CODE}: torchvision's default"),
    mlp=(False, "[1] section 3.3"),
    dim=(128, "[1] section 3.3"),
    queue_size=(65536, "[1] section 4.1"),
    key_momentum=(0.999, "[1] section 3.2"),
    temperature=(0.07, "[1] section 3.3"),
    batch_size=(256, "[1] section 4"),
    bn_groups=(8, "[1] sections 3.3 and 4: BN on each of 8 GPUs, keys shuffled across them"),
    optimizer=("sgd", "[1] section 4"),
    learning_rate=(0.03, "[1] section 4"),
    rate_scaling=("linear", "[2] README: 4 GPUs, batch 128, rate 0.015"),
    rate_step=("epoch", CODE),
    warmup_epochs=(0, "[1] section 4: none"),
    cosine=(False, "[1] section 4"),
    decay_epochs=((120, 160), "[1] section 4"),
    epochs=(200, "[1] section 4"),
    momentum=(0.9, "[1] section 4"),
    weight_decay=(1e-4, f"[1] section 4; {CODE}: on every parameter"),
)
MLP = (True, "[3] section 3: hidden layer as wide as the feature, ReLU")
T_MLP = (0.2, "[3] section 3: the best with the MLP")
V2 = vary(
    V1,
    name="moco-v2-200ep",
    source="arXiv 2003.04297, Table 1 (d)",
    mlp=MLP,
    temperature=T_MLP,
    augmentation=VIEWS_PLUS,
    cosine=(True, "[3] section 3; [2] main_moco.py --cos"),
    epochs=(200, "[3] Table 1"),
)
TABLE_1 = "arXiv 2003.04297, Table 1"
CIFAR = vary(
    V2,
    name="moco-v2-cifar10",
    source="colab/moco_cifar10_demo.ipynb of the authors' code, asymmetric: kNN of embeddings 82.6 at 200 epochs",
    symmetric=(False, f"{DEMO} --symmetric is off"),
    augmentation=VIEWS_CIFAR,
    image_size=(32, f"{DEMO} train_transform"),
    arch=("resnet18", f"{DEMO} --arch"),
    stem=("3x3", f"{DEMO} ModelBase"),
    mlp=(False, f"{DEMO} ModelBase"),
    queue_size=(4096, f"{DEMO} --moco-k"),
    key_momentum=(0.99, f"{DEMO} --moco-m"),
    temperature=(0.1, f"{DEMO} --moco-t"),
    batch_size=(512, f"{DEMO} --batch-size"),
    bn_groups=(8, f"{DEMO} --bn-splits: one device plays eight"),
    learning_rate=(0.06, f"{DEMO} --lr"),
    rate_scaling=("linear", f"{DEMO}: 0.06 for batch 512, 0.03 for 256"),
    cosine=(True, f"{DEMO} --cos"),
    epochs=(200, f"{DEMO} --epochs"),
    weight_decay=(5e-4, f"{DEMO} --wd"),
    departures=(
        "the demo counts epochs from 1, so that its rates are those of one epoch later here, and 0 in its last epoch",
    ),
)
# Ours: MoCo v2 shrunk until two CPU cores learn something in minutes.
OURS = "this project"
DEMO_VIEWS = vary(
    VIEWS_PLUS,
    crop_scale=((0.5, 1.0), f"{OURS}: milder, for small pictures"),
    blur_probability=(0.0, f"{OURS}: its sigmas are for 224 pixels; {DEMO} has none either"),
    blur_sigma=((0.1, 2.0), "unused"),
)
# Of the recipes that [2] trains on several GPUs. Its CIFAR-10 demo has one, and averages over groups as we do.
AUTHORS_GPUS = (
    "BN's running statistics move towards the mean over the groups'; in [2] DistributedDataParallel hands out those of "
    "the first GPU before each step, so that they follow its images alone",
)
MOCO_RECIPES = (
    vary(V1, departures=AUTHORS_GPUS),
    vary(V2, departures=AUTHORS_GPUS),
    vary(V2, name="moco-v2-800ep", source=f"{TABLE_1} (e)", epochs=(800, "[3] Table 1 (e)"), departures=AUTHORS_GPUS),
    # The ablation rows differ from v1 by the switches that their row ticks.
    vary(V1, name="moco-v2-a", source=f"{TABLE_1} (a)", mlp=MLP, temperature=T_MLP, departures=AUTHORS_GPUS),
    vary(V1, name="moco-v2-b", source=f"{TABLE_1} (b)", augmentation=VIEWS_PLUS, departures=AUTHORS_GPUS),
    vary(
        V1,
        name="moco-v2-c",
        source=f"{TABLE_1} (c)",
        mlp=MLP,
        temperature=T_MLP,
        augmentation=VIEWS_PLUS,
        departures=AUTHORS_GPUS,
    ),
    CIFAR,
    vary(
        CIFAR,
        name="moco-v2-cifar10-symmetric",
        source="colab/moco_cifar10_demo.ipynb of the authors' code, symmetric: kNN of embeddings 85.3 at 200 epochs",
        symmetric=(True, f"{DEMO} --symmetric"),
    ),
    vary(
        V2,
        name="end-to-end-200ep",
        source="arXiv 2003.04297, Table 3, end-to-end, with the settings of Table 1 (d)",
        method=("end-to-end", "[1] Figure 2a and section 3.2"),
        queue_size=(0, "[1] section 3.2: the other images of the batch instead"),
        key_momentum=(0.0, "[1] section 3.2: both encoders learn by gradient"),
        batch_size=(256, "[3] Table 3"),
        bn_groups=(8, "[1] section 3.3: shuffled for end-to-end too"),
        rate_scaling=("linear", "[1] section 4.1: for end-to-end at other batch sizes"),
    ),
    vary(
        V2,
        name="demo",
        source="this project: MoCo v2 at a size for two CPU cores; no published counterpart",
        augmentation=DEMO_VIEWS,
        image_size=(64, OURS),
        zero_init_residual=(
            True,
            f"{OURS}, after arXiv 1706.02677, section 5.1: a random ResNet-50 gives two views of a picture features "
            "no more alike than those of two pictures; this one does not",
        ),
        queue_size=(256, f"{OURS}: smaller than the data"),
        key_momentum=(0.99, f"{DEMO} --moco-m"),
        temperature=(0.1, f"{DEMO} --moco-t"),
        batch_size=(32, OURS),
        bn_groups=(4, OURS),
        learning_rate=(0.01, f"{OURS}: low, so that the keys in the queue are not told apart by their age"),
        epochs=(20, OURS),
    ),
)
