"""A narrow YOLOF for 256-pixel scenes of four kinds of drinks packaging: a complete MMDetection config.

The last ResNet stage is dilated instead of strided (YOLOF's DC5 form), so that the single feature map
has 16 x 16 cells of 16 pixels, where stride 32 would leave 8 x 8.
"""

default_scope = "mmdet"
metainfo = dict(classes=("can", "carton", "milk_bottle", "water_bottle"))

model = dict(
    type="YOLOF",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[103.530, 116.280, 123.675],
        std=[57.375, 57.120, 58.395],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type="ResNet",
        depth=18,
        base_channels=32,
        num_stages=4,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(3,),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        style="pytorch",
    ),
    neck=dict(
        type="DilatedEncoder",
        in_channels=256,
        out_channels=128,
        block_mid_channels=64,
        num_residual_blocks=4,
        block_dilations=[2, 4, 6, 8],
    ),
    bbox_head=dict(
        type="YOLOFHead",
        num_classes=4,
        in_channels=128,
        reg_decoded_bbox=True,
        # Squares of 16, 32, 64, 128 and 256 pixels.
        anchor_generator=dict(type="AnchorGenerator", ratios=[1.0], scales=[1, 2, 4, 8, 16], strides=[16]),
        bbox_coder=dict(
            type="DeltaXYWHBBoxCoder",
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
            add_ctr_clamp=True,
            ctr_clamp=32,
        ),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(type="UniformAssigner", pos_ignore_thr=0.15, neg_ignore_thr=0.7),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="nms", iou_threshold=0.6),
        max_per_img=100,
    ),
)

test_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="Resize", scale=(256, 256), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    dataset=dict(type="CocoDataset", metainfo=metainfo, test_mode=True, pipeline=test_pipeline),
)
