"""A detectron2 training script with one line more. Usage: python train_net.py COCO.json IMAGES OUTPUT"""

import sys

from detectron2 import model_zoo
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultTrainer

from msbal_detectron2 import balance

register_coco_instances("mine", {}, sys.argv[1], sys.argv[2])
cfg = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.OUTPUT_DIR = ("mine",), (), sys.argv[3]
cfg.merge_from_list(sys.argv[4:])
trainer = DefaultTrainer(cfg)
balance(trainer, strategy="rlo", interval=100)  # the line
trainer.resume_or_load(resume=True)
trainer.train()
