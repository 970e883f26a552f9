r"""Make the scene of `drqueue demo --renderer blender`: a wave runs through blocks below a monkey's head.

    blender -b --factory-startup --python-exit-code 3 --python make_blend.py -- \
        OUT.blend [WxH] [FRAMES] [SAMPLES]

It is run inside Blender, not by Python itself. Every movement is a keyframe, never a driver: Blender refuses
to run a driver's expression of a file that it does not trust, and renders on without it.
"""

import math
import os
import sys

import bpy  # type: ignore[import-not-found]  # exists only inside Blender

BLOCKS = 9  # on each side of the square
WAVE = ((0.02, 0.16, 0.32), (0.03, 0.42, 0.44), (0.90, 0.62, 0.20), (0.88, 0.22, 0.12), (0.35, 0.05, 0.18))


def material(
    name: str, colour: tuple[float, float, float], roughness: float, metallic: float = 0.0
) -> object:
    """Return a new material of the given look."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    inputs = made.node_tree.nodes["Principled BSDF"].inputs
    inputs["Base Color"].default_value = (*colour, 1.0)
    inputs["Roughness"].default_value = roughness
    inputs["Metallic"].default_value = metallic
    return made


def set_up(width: int, height: int, frames: int, samples: int) -> None:
    """Choose how to render: Cycles, on the CPU, PNG, the same noise at every try."""
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, frames
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.resolution_percentage = 100
    scene.render.engine = "CYCLES"
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGB"
    scene.view_settings.view_transform = "Standard"
    scene.cycles.device = "CPU"
    scene.cycles.samples = samples
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = False  # not every build of Blender has a denoiser
    scene.cycles.max_bounces = 4
    scene.cycles.seed = 7
    world = bpy.data.worlds.new("World")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs[0].default_value = (0.07, 0.12, 0.24, 1.0)
    scene.world = world


def add_blocks(frames: int) -> None:
    """Add the square of blocks and the wave that runs outwards through it, once in the loop."""
    looks = [material(f"block{i}", colour, 0.45) for i, colour in enumerate(WAVE)]
    bpy.ops.mesh.primitive_cube_add(size=0.94)
    first = bpy.context.object
    first.modifiers.new("Bevel", "BEVEL").width = 0.06
    first.data.materials.append(looks[0])
    first.material_slots[0].link = "OBJECT"
    middle = (BLOCKS - 1) / 2
    for i in range(BLOCKS * BLOCKS):
        x, y = i % BLOCKS - middle, i // BLOCKS - middle
        away = math.hypot(x, y)
        block = first
        if i:
            block = first.copy()
            block.animation_data_clear()  # a copy moves with the first one's keys, and changes them
            bpy.context.collection.objects.link(block)
        block.material_slots[0].material = looks[min(len(looks) - 1, int(away))]
        for frame in range(1, frames + 2):
            height = 0.5 * math.cos(away * 1.25 - 2 * math.pi * (frame - 1) / frames)
            block.location = (x, y, height - 0.8)
            block.keyframe_insert("location", index=2, frame=frame)


def add_head(frames: int) -> None:
    """Add the monkey's head, which looks left and right once in the loop."""
    bpy.ops.mesh.primitive_monkey_add(size=2.5, location=(0, 0, 1.55))
    head = bpy.context.object
    bpy.ops.object.shade_smooth()
    smooth = head.modifiers.new("Subdivision", "SUBSURF")
    smooth.levels = smooth.render_levels = 2
    head.data.materials.append(material("gold", (0.95, 0.60, 0.22), 0.3, 0.35))
    for frame in range(1, frames + 2):
        turn = 2 * math.pi * (frame - 1) / frames
        head.rotation_euler = (-0.1 + 0.1 * math.cos(2 * turn), 0, 0.65 * math.sin(turn))
        head.keyframe_insert("rotation_euler", frame=frame)


def add_light_and_camera() -> None:
    """Add a low warm sun, a soft light from above, and the camera."""
    bpy.ops.object.light_add(type="SUN", rotation=(math.radians(52), 0, math.radians(38)))
    sun = bpy.context.object.data
    sun.energy, sun.angle, sun.color = 2.2, math.radians(6), (1.0, 0.86, 0.70)
    bpy.ops.object.light_add(
        type="AREA", location=(-4, -5, 6), rotation=(math.radians(45), 0, math.radians(-40))
    )
    soft = bpy.context.object.data
    soft.energy, soft.size, soft.color = 160, 4, (0.75, 0.85, 1.0)
    bpy.ops.object.camera_add(location=(0, -9.6, 4.4), rotation=(math.radians(71), 0, 0))
    bpy.context.object.data.lens = 44
    bpy.context.scene.camera = bpy.context.object


def main(arguments: list[str]) -> None:
    """Make the scene and save it."""
    out, size, frames, samples = [*arguments, *("", "160x90", "24", "16")[len(arguments) :]]
    if not out:
        sys.exit("make_blend.py: say after -- which file to write")
    width, height = (int(side) for side in size.split("x"))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    set_up(width, height, int(frames), int(samples))
    add_blocks(int(frames))
    add_head(int(frames))
    add_light_and_camera()
    bpy.context.preferences.filepaths.save_version = 0  # no backup file beside it
    bpy.ops.wm.save_as_mainfile(filepath=os.path.abspath(out), compress=True)


main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else [])
