"""What renderers are called with: for parameters, a range and a chunk size, all calls in their order.

One row is (kind, parameters, frames, chunk, calls); a call is a line of words as a shell would read it. Every
attempt has two cores.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One job and its calls."""

    kind: str
    params: dict[str, object]
    frames: str
    chunk: int
    calls: list[str]


_MAYA = {"scene": "s.ma", "renderdir": "/r", "projectdir": "/p"}
_XSI = {"scene": "/s.scn", "renderdir": ".", "xsidir": "BIN"}

ROWS = [
    Row("general", {"command": "any {start} {end} {step}"}, "1-5x2", 2, ["any 1 3 2", "any 5 5 1"]),
    Row(
        "maya",
        _MAYA,
        "1-4",
        3,
        [f"Render -s {a} -e {b} -b 1 -rd /r -proj /p -r file s.ma" for a, b in ((1, 3), (4, 4))],
    ),
    Row(
        "maya",
        {
            **_MAYA,
            "image": "im",
            "camera": "cam1",
            "res_x": 64,
            "res_y": 36,
            "format": "tif",
            "renderer": "1",
            "precommand": 'print "a";',
            "postcommand": "b",
        },
        "1-10x3",
        2,
        [
            (
                "Render -preRender 'print \"a\";' -postRender b -rt 2 -s 1 -e 4 -b 3 -x 64 -y 36 -of tif "
                "-rd /r -proj /p -r mr -im im -cam cam1 s.ma"
            ),
            (
                "Render -preRender 'print \"a\";' -postRender b -rt 2 -s 7 -e 10 -b 3 -x 64 -y 36 -of tif "
                "-rd /r -proj /p -r mr -im im -cam cam1 s.ma"
            ),
        ],
    ),
    Row(
        "maya",
        {**_MAYA, "renderer": 0},
        "4-1",
        4,
        ["Render -n 2 -s 1 -e 4 -b 1 -rd /r -proj /p -r sw s.ma"],
    ),
    Row(
        "mentalray",
        {"scene": "/a.mi", "renderdir": "."},
        "1-4",
        2,
        ["ray /a.mi -render 1 2", "ray /a.mi -render 3 4"],
    ),
    Row(
        "mentalray",
        {"scene": "/a.mi", "renderdir": ".", "res_x": 8, "res_y": 6},
        "1-5x2",
        3,
        [f"ray /a.mi -resolution 8 6 -render {n} {n}" for n in (1, 3, 5)],
    ),
    Row(
        "mentalray",
        {"scene": "/a.mi", "renderdir": ".", "render_type": 2, "image": "im", "res_x": 8, "res_y": 10},
        "1-3",
        2,
        [
            "ray /a.mi -window 0 6 8 10 -file_name im_0001.iff",
            "ray /a.mi -window 0 3 8 6 -file_name im_0002.iff",
            "ray /a.mi -window 0 0 8 3 -file_name im_0003.iff",
        ],
    ),
    Row(
        "3delight", {"scene": "a.rib"}, "1-3", 2, ["renderdl -frames 1 2 a.rib", "renderdl -frames 3 3 a.rib"]
    ),
    Row("3delight", {"scene": "a.rib"}, "3-1", 3, [f"renderdl -frames {n} {n} a.rib" for n in (3, 2, 1)]),
    Row("pixie", {"scene": "a.rib"}, "1-5x2", 3, [f"rndr -f {n} a.rib" for n in (1, 3, 5)]),
    Row("aqsis", {"scene": "a.rib"}, "1-3", 3, ["aqsis -frames 1 3 a.rib"]),
    Row(
        "aqsis",
        {"scene": "a.rib", "custom_crop": "1", "xmin": "0", "xmax": 0.5, "ymin": "0.25", "ymax": 1},
        "2",
        1,
        ["aqsis -frames 2 2 -crop 0 0.5 0.25 1 a.rib"],
    ),
    Row("bmrt", {"scene": "a.rib"}, "1-2", 2, ["rendrib -frames 1 2 a.rib"]),
    Row(
        "bmrt",
        {
            "scene": "a.rib",
            "custom_crop": True,
            "xmin": 0,
            "xmax": 1,
            "ymin": 0,
            "ymax": 1,
            "custom_samples": True,
            "xsamples": 2,
            "ysamples": 3,
            "disp_stats": True,
            "verbose": "yes",
            "custom_radiosity": True,
            "radiosity_samples": 7,
            "custom_raysamples": True,
            "raysamples": 9,
            "custom_beep": "on",
        },
        "1",
        1,
        ["rendrib -frames 1 1 -crop 0 1 0 1 -samples 2 3 -stats -v -radio 7 -rsamples 9 -beep a.rib"],
    ),
    Row(
        "mantra",
        {"scene": "s", "renderdir": "out/im"},
        "9-11",
        2,
        [f"mantra -f s{n:04d}.ifd out/im{n:04d}.pic" for n in (9, 10, 11)],
    ),
    Row(
        "mantra",
        {
            "scene": "s.##.ifd",
            "renderdir": "im",
            "type": "tif",
            "aaoff": 1,
            "raytrace": 1,
            "bucket": 16,
            "lod": 0.5,
            "varyaa": 0.01,
            "bdepth": 16,
            "zdepth": "nearest",
            "cracks": 3,
            "quality": 2,
            "qfiner": 4,
            "smultiplier": 1.5,
            "mpcache": 5,
            "mcache": 6,
            "smpolygon": 8,
            "width": 64,
            "height": 36,
        },
        "7",
        1,
        [
            (
                "mantra -f s.07.ifd -A -r -B 16 -L 0.5 -v 0.01 -b 16 -Z -c 3 -q 2 -Q 4 -s 1.5 -G 5 -g 6 -S 8 "
                "-w 64 -h 36 im0007.tif"
            )
        ],
    ),
    Row(
        "mantra",
        {"scene": "s", "renderdir": "i", "zdepth": "average"},
        "1",
        1,
        ["mantra -f s0001.ifd -z i0001.pic"],
    ),
    Row(
        "lightwave",
        {"scene": "s.lws", "projectdir": "/p", "configdir": "/c"},
        "1-9x2",
        3,
        ["lwsn -3 -c /c -d /p -q s.lws 1 5 2", "lwsn -3 -c /c -d /p -q s.lws 7 9 2"],
    ),
    Row("lightwave", {"scene": "s.lws"}, "5", 1, ["lwsn -3 -q s.lws 5 5 1"]),
    Row("nuke", {"scene": "s.nk"}, "1-9x2", 3, ["nuke -x -m 2 -F 1-5x2 s.nk", "nuke -x -m 2 -F 7-9x2 s.nk"]),
    Row(
        "nuke",
        {"scene": "s.nk", "write": "Write 1", "proxy": 1, "interactive": 1, "verbose": 1},
        "3-1",
        2,
        ["nuke -i -p -V -X 'Write 1' -m 2 -F 2-3x1 s.nk", "nuke -i -p -V -X 'Write 1' -m 2 -F 1-1x1 s.nk"],
    ),
    Row(
        "shake", {"script": "a.shk"}, "1-9x2", 3, [f"shake -v -t {t} -exec a.shk" for t in ("1-5x2", "7-9x2")]
    ),
    Row(
        "aftereffects",
        {"project": "/p/x.aep", "comp": "Comp 1"},
        "1-4",
        4,
        [
            (
                "aerender -project /p/x.aep -comp 'Comp 1' -OMtemplate 'Multi-Machine Sequence' "
                "-RStemplate 'Multi-Machine Settings' -s 1 -e 4 -i 1 -output '/p/frame_[####].psd'"
            )
        ],
    ),
    Row(
        "aftereffects",
        {"project": "x.aep", "comp": "c", "output": "o.psd"},
        "1-9x2",
        5,
        [
            (
                "aerender -project x.aep -comp c -OMtemplate 'Multi-Machine Sequence' "
                "-RStemplate 'Multi-Machine Settings' -s 1 -e 9 -i 2 -output o.psd"
            )
        ],
    ),
    Row(
        "terragen",
        {"scriptfile": "a.tgs", "worldfile": "w.tgw", "terrainfile": "t x.ter"},
        "1-4x3",
        2,
        ["terragenCLI -hide -exit -ww.tgw '-tt x.ter' -sa.tgs 1 1 4 3"],
    ),
    Row("terragen", {"scriptfile": "a.tgs"}, "2", 1, ["terragenCLI -hide -exit -sa.tgs 2 2 2 1"]),
    Row(
        "turtle",
        {
            "scene": "s.mb",
            "renderdir": "/r",
            "projectdir": "/p",
            "usemaya70": "no",
            "image": "im",
            "camera": "c",
            "res_x": 4,
            "res_y": 3,
        },
        "1-2",
        2,
        [
            (
                "Turtle65 -geometry s.mb -imageOutputPath /r -projectPath /p -renderThreads 2 -display off "
                "-startframe 1 -endframe 2 -imageName im -camera c -resolution 4 3"
            )
        ],
    ),
    Row(
        "turtle",
        {"scene": "s.mb", "renderdir": "/r", "projectdir": "/p"},
        "1-3x2",
        2,
        [
            f"Turtle70 -geometry s.mb -imageOutputPath /r -projectPath /p -renderThreads 2 -display off "
            f"-startframe {n} -endframe {n}"
            for n in (1, 3)
        ],
    ),
    Row(
        "xsi", _XSI, "1-2", 2, ["xsibatch -r -scene /s.scn -verbose prog -startframe 1 -endframe 2 -skip off"]
    ),
    Row(
        "xsi",
        {**_XSI, "xsipass": "beauty", "res_x": 4, "res_y": 3, "skipframes": "yes"},
        "7",
        1,
        [
            (
                "xsibatch -r -scene /s.scn -verbose prog -startframe 7 -endframe 7 -pass beauty "
                "-resolutionX 4 -resolutionY 3 -skip on"
            )
        ],
    ),
    Row("luxrender", {"scene": "s.lxs"}, "1-2", 2, ["luxconsole s.lxs", "luxconsole s.lxs"]),
    Row(
        "luxrender",
        {"scene": "d#/s_###.lxs"},
        "1-3x2",
        2,
        ["luxconsole d#/s_001.lxs", "luxconsole d#/s_003.lxs"],
    ),
    Row(
        "vray",
        {"scene": "s.vrscene"},
        "1-2",
        2,
        [f"vray -scenefile=s.vrscene -numThreads=2 -autoClose=1 -frames={n} -display=0" for n in (1, 2)],
    ),
    Row(
        "vray",
        {"scene": "a b.vrscene", "image": "o u.exr", "width": 4, "height": 3},
        "5",
        1,
        [
            (
                "vray '-scenefile=a b.vrscene' '-imgFile=o u.exr' -imgWidth=4 -imgHeight=3 -numThreads=2 "
                "-autoClose=1 -frames=5 -display=0"
            )
        ],
    ),
    Row("3dsmax", {"scene": "s.max"}, "1-3", 3, ["3dsmaxcmd.exe -rfw:0 -frames:1-3 s.max"]),
    Row(
        "3dsmax",
        {"scene": "s.max", "image": "i.tga"},
        "1-5x2",
        3,
        ["3dsmaxcmd.exe -rfw:0 -frames:1,3,5 -o i.tga s.max"],
    ),
    Row(
        "cinema4d",
        {"scene": "/s.c4d", "renderdir": "/r/i"},
        "1-3x2",
        2,
        [
            f"'CINEMA 4D' -nogui -render /s.c4d -oimage /r/i -frame {n} -omultipass /r/i -threads 2"
            for n in (1, 3)
        ],
    ),
    Row(
        "cinema4d",
        {"scene": "/d/s.c4d", "renderdir": "/r/i", "wine": "yes", "program": "/opt/C 4D.exe"},
        "1",
        1,
        [
            (
                "wine '/opt/C 4D.exe' -nogui -render 'Z:\\d\\s.c4d' -oimage 'Z:\\r\\i' -frame 1 "
                "-omultipass 'Z:\\r\\i' -threads 2"
            )
        ],
    ),
    Row(
        "povray",
        {"scene": "s.pov", "output": "im_.png"},
        "1-9x2",
        3,
        [
            """povray '+I"s.pov"' '+O"im_.png"' +FN -D +WT2 +KFI1 +KFF9 +SF1 +EF5 Frame_Step=2""",
            """povray '+I"s.pov"' '+O"im_.png"' +FN -D +WT2 +KFI1 +KFF9 +SF7 +EF9 Frame_Step=2""",
        ],
    ),
    Row(
        "povray",
        {
            "scene": "s.pov",
            "ini": "a b.ini",
            "output": "im.png",
            "width": 4,
            "height": 3,
            "quality": 9,
            "antialias": 0.3,
            "include": "i n:inc",
            "declare": "Night=1  sun_2=-.5e1",
            "first": 1,
            "last": 100,
            "clock_start": -1,
            "clock_end": 0.5,
            "cyclic": "yes",
        },
        "30-21",
        10,
        [
            (
                """povray '"a b.ini"' '+I"s.pov"' '+O"im.png"' +FN -D +WT2 +W4 +H3 +Q9 +A0.3 '+L"i n"' """
                """'+L"inc"' Declare=Night=1 Declare=sun_2=-.5e1 """
                """+KFI1 +KFF100 +SF21 +EF30 Frame_Step=1 +KC +KI-1 +KF0.5"""
            )
        ],
    ),
    Row(
        "povray",
        {"scene": "s.pov"},
        "7",
        1,
        ["""povray '+I"s.pov"' '+O"frame_0007.png"' +FN -D +WT2"""],
    ),
]
