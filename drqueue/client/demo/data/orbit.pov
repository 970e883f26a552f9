// The POV-Ray scene of `drqueue demo --renderer povray`: a wreath of glass and metal that turns in the evening.
//
//   povray +Iorbit.pov +Oframe_0007.png +W320 +H180 +A0.2 +FN -D Declare=Frame=7 Declare=Frames=24
//
// The frame may come as a declared number, as here, and then the output has exactly the name that was asked for;
// where none is declared it is that of POV-Ray's own animation loop (+KFI, +KFF). It needs no include files.
#version 3.7;
global_settings { assumed_gamma 1.0 max_trace_level 8 }

#ifndef (Frame) #declare Frame = (clock_on ? frame_number - initial_frame + 1 : 1); #end
#ifndef (Frames) #declare Frames = (clock_on ? final_frame - initial_frame + 1 : 24); #end
#declare T = (Frame - 1) / Frames;         // 0 at the first frame; 1 would be the first frame again
#declare Beads = 12;

#declare Sway = 14 * sin(2*pi*T);
camera {
  location vrotate(<0, 3.3, -7.6>, y*Sway)
  right x*image_width/image_height
  look_at <0, 0.85, 0>
  angle 46
}

light_source { <-6, 7, -5> color rgb <1.9, 1.6, 1.3> area_light <1.6,0,0>, <0,1.6,0>, 3, 3 adaptive 1 jitter }
light_source { <7, 4, 2> color rgb <0.18, 0.25, 0.45> shadowless }

sky_sphere {
  pigment {
    gradient y
    color_map {
      [0.00 color rgb <0.95, 0.55, 0.32>]
      [0.18 color rgb <0.55, 0.32, 0.42>]
      [0.60 color rgb <0.08, 0.12, 0.32>]
      [1.00 color rgb <0.03, 0.05, 0.16>]
    }
  }
}

fog { fog_type 1 distance 110 color rgb <0.80, 0.46, 0.30> }

// A round table of dark wood rings.
cylinder { <0, -0.3, 0>, <0, 0, 0>, 3.7
  pigment {
    wood
    color_map { [0.0 color rgb <0.16, 0.07, 0.035>] [0.8 color rgb <0.30, 0.14, 0.06>] [1.0 color rgb <0.09, 0.04, 0.02>] }
    turbulence 0.06 rotate x*88 scale 0.45
  }
  finish { ambient 0.03 diffuse 0.7 specular 0.3 roughness 0.03 reflection { 0.05, 0.35 fresnel } conserve_energy }
  interior { ior 1.5 }
}
plane { y, -0.3 pigment { color rgb <0.20, 0.18, 0.22> } finish { ambient 0.02 diffuse 0.6 } }

// The wreath: beads that wander round the table, every third of glass; each takes the next but two's place.
#for (I, 0, Beads - 1)
  #declare A = 2*pi*(I/Beads + T*3/Beads);
  #declare H = 0.42 + 0.5*pow(sin(pi*(T + I/3)), 2);
  sphere { <2.75*cos(A), H - 0.05, 2.75*sin(A)>, 0.37
    #switch (mod(I, 3))
      #case (0)
        pigment { color rgbf <0.86, 0.96, 0.92, 0.92> }
        finish { ambient 0 diffuse 0.08 specular 0.9 roughness 0.002 reflection { 0.03, 0.7 fresnel } conserve_energy }
        interior { ior 1.45 }
      #break
      #case (1)
        pigment { color rgb <0.85, 0.10, 0.09> }
        finish { ambient 0.03 diffuse 0.7 specular 0.6 roughness 0.01 reflection 0.12 }
      #break
      #else
        pigment { color rgb <0.06, 0.40, 0.48> }
        finish { ambient 0.03 diffuse 0.7 specular 0.6 roughness 0.01 reflection 0.12 }
    #end
  }
#end

// In the middle a gold ring rolls about a silver ball.
union {
  torus { 1.15, 0.13 rotate x*90 }
  torus { 1.15, 0.13 rotate x*90 rotate y*90 scale 0.76 }
  rotate y*180*T rotate x*25 scale 0.82 translate y*1.35
  pigment { color rgb <0.90, 0.60, 0.22> }
  finish { ambient 0.05 diffuse 0.4 specular 0.8 roughness 0.01 metallic reflection { 0.4 metallic } }
}
sphere { <0, 1.35, 0>, 0.42
  pigment { color rgb 0.8 }
  finish { ambient 0.02 diffuse 0.2 specular 0.9 roughness 0.003 reflection 0.7 }
}
