// The page that turns a cloud in the browser: data as base 64, one canvas, no other file.
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "pointcloud/draw_cloud.h"

namespace serpentine {
namespace {

std::string base64(const at::Tensor& values) {
  constexpr const char* kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const at::Tensor whole = values.contiguous();
  const auto* bytes = static_cast<const unsigned char*>(whole.const_data_ptr());
  const size_t size = whole.nbytes();
  std::string text;
  text.reserve(size / 3 * 4 + 4);
  for (size_t i = 0; i < size; i += 3) {
    const auto byte = [&](size_t j) { return i + j < size ? uint32_t{bytes[i + j]} : 0U; };
    const uint32_t three = byte(0) << 16U | byte(1) << 8U | byte(2);
    for (size_t digit = 0; digit < 4; ++digit)
      text += digit <= size - i ? kDigits[three >> (18 - 6 * digit) & 63U] : '=';
  }
  return text;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

/// A value inside a script element: nothing in it may look like the element's end.
std::string in_script(const nlohmann::json& value) {
  std::string out;
  for (const char c : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

constexpr const char* kStyle = R"(<style>
body{margin:0;background:#111;color:#ddd;font:14px sans-serif;overflow:hidden}
canvas{display:block;cursor:grab;touch-action:none}
#bar,#keys,#help{position:fixed;left:8px}#bar{top:8px}#keys{top:44px;pointer-events:none}
#help{bottom:8px;color:#888;pointer-events:none}
button{margin-right:4px}button.on{background:#4e79a7;color:#fff}
i{display:inline-block;width:10px;height:10px;margin-right:6px}
</style>)";

constexpr const char* kBody = R"(
<canvas></canvas><div id="bar"></div><div id="keys"></div>
<div id="help">drag: turn &nbsp; shift and drag: move &nbsp; wheel: zoom</div>
)";

constexpr const char* kScript = R"(
const bytes=t=>Uint8Array.from(atob(t),c=>c.charCodeAt(0));
const floats=t=>new Float32Array(bytes(t).buffer);
const points=floats(data.points),count=points.length/3,places=floats(data.places);
const colours=data.colours.map(bytes),walk=data.walk?new Int32Array(bytes(data.walk).buffer):null;
const canvas=document.querySelector('canvas'),ink=canvas.getContext('2d');
const view={yaw:0.6,pitch:-1.1,zoom:1,x:0,y:0,layer:0,line:false,points:count,visible:0};

function project(source,n){
  const w=canvas.width,h=canvas.height,s=Math.min(w,h)*0.42*view.zoom;
  const cy=Math.cos(view.yaw),sy=Math.sin(view.yaw),cp=Math.cos(view.pitch),sp=Math.sin(view.pitch);
  const X=new Float32Array(n),Y=new Float32Array(n),D=new Float32Array(n);
  for(let i=0;i<n;i++){
    const a=source[3*i],b=source[3*i+1],z=source[3*i+2],y=a*sy+b*cy;
    X[i]=w/2+view.x+s*(a*cy-b*sy);Y[i]=h/2+view.y-s*(y*cp-z*sp);D[i]=y*sp+z*cp;
  }
  return [X,Y,D];
}

function dots(X,Y,D){
  const w=canvas.width,h=canvas.height,image=ink.createImageData(w,h),pixels=image.data;
  const depth=new Float32Array(w*h).fill(-1e9),C=colours[view.layer],size=count<2e4?3:count<2e5?2:1;
  let visible=0;
  for(let i=0;i<count;i++){
    const f=Math.min(1,Math.max(0.45,0.75+0.3*D[i]));
    for(let a=0;a<size;a++)for(let b=0;b<size;b++){
      const x=Math.floor(X[i])+a,y=Math.floor(Y[i])+b;
      if(x<0||y<0||x>=w||y>=h)continue;
      const k=y*w+x;
      if(D[i]<=depth[k])continue;
      if(depth[k]===-1e9)visible++;
      depth[k]=D[i];
      pixels[4*k]=C[3*i]*f;pixels[4*k+1]=C[3*i+1]*f;pixels[4*k+2]=C[3*i+2]*f;pixels[4*k+3]=255;
    }
  }
  ink.putImageData(image,0,0);
  view.visible=visible;
}

// pieces of one colour each: a stroke a step would be slow
function line(X,Y){
  const pieces=Math.min(120,walk.length);
  for(let p=0;p<pieces;p++){
    const from=Math.max(1,Math.floor(walk.length*p/pieces)),to=Math.floor(walk.length*(p+1)/pieces);
    ink.strokeStyle='hsl('+300*p/pieces+' 90% 60%)';ink.beginPath();
    for(let i=from;i<to;i++){
      const a=walk[i-1],b=walk[i];
      if(a<0||b<0)continue;
      ink.moveTo(X[a],Y[a]);ink.lineTo(X[b],Y[b]);
    }
    ink.stroke();
  }
}

function draw(){
  canvas.width=innerWidth;canvas.height=innerHeight;
  const [X,Y,D]=project(points,count);
  dots(X,Y,D);
  if(view.line&&walk)line(X,Y);
  const [MX,MY]=project(places,data.marks.length);
  ink.fillStyle='#eee';ink.font='12px sans-serif';
  data.marks.forEach((text,i)=>ink.fillText(text,MX[i],MY[i]));
  const keys=document.getElementById('keys');
  keys.replaceChildren(...data.keys[view.layer].map(([text,colour])=>{
    const row=document.createElement('div'),box=document.createElement('i');
    box.style.background=colour;row.append(box,text);return row}));
  document.querySelectorAll('button').forEach((b,i)=>
    b.classList.toggle('on',i===view.layer||(i===colours.length&&view.line)));
}

function button(text,act){
  const b=document.createElement('button');b.textContent=text;
  b.onclick=()=>{act();draw()};document.getElementById('bar').append(b);
}
data.titles.forEach((title,i)=>button(title,()=>{view.layer=i}));
if(walk)button('traversal',()=>{view.line=!view.line});
let from=null;
canvas.onpointerdown=e=>{from=[e.clientX,e.clientY];canvas.setPointerCapture(e.pointerId)};
canvas.onpointerup=canvas.onpointercancel=()=>{from=null};
canvas.onpointermove=e=>{
  if(!from)return;
  const dx=e.clientX-from[0],dy=e.clientY-from[1];
  from=[e.clientX,e.clientY];
  if(e.shiftKey){view.x+=dx;view.y+=dy}else{view.yaw+=dx/200;view.pitch+=dy/200}
  draw();
};
canvas.addEventListener('wheel',e=>{
  e.preventDefault();
  const f=Math.exp(-e.deltaY/800),x=e.clientX-canvas.width/2,y=e.clientY-canvas.height/2;
  view.x=x+(view.x-x)*f;view.y=y+(view.y-y)*f;view.zoom*=f;draw();
},{passive:false});
onresize=draw;draw();
)";

std::string hex(const std::array<uint8_t, 3>& colour) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text = "#";
  for (const uint8_t part : colour) {
    text += kDigits[part >> 4U];
    text += kDigits[part & 15U];
  }
  return text;
}

}  // namespace

std::string cloud_page(const std::string& title, const CloudScene& scene) {
  check_scene(scene);
  nlohmann::json data = {{"title", title}, {"walk", nullptr}};
  data["points"] = base64(as_seen(scene.points, scene.points));
  data["titles"] = data["colours"] = data["keys"] = data["marks"] = nlohmann::json::array();
  for (const auto& layer : scene.layers) {
    data["titles"].push_back(layer.title);
    data["colours"].push_back(base64(layer.colours.to(at::kCPU, at::kByte)));
    auto keys = nlohmann::json::array();
    for (const auto& key : layer.keys)
      keys.push_back(nlohmann::json::array({key.text, hex(key.colour)}));
    data["keys"].push_back(keys);
  }
  if (scene.walk.defined()) data["walk"] = base64(scene.walk.to(at::kCPU, at::kInt));
  const auto marks = static_cast<int64_t>(scene.marks.size());
  const at::Tensor places = at::zeros({marks, 3}, at::kDouble);
  for (int64_t i = 0; i < marks; ++i) {
    const auto& mark = scene.marks[static_cast<size_t>(i)];
    for (int64_t axis = 0; axis < 3; ++axis)
      places[i][axis] = mark.place[static_cast<size_t>(axis)];
    data["marks"].push_back(mark.text);
  }
  data["places"] = base64(as_seen(places, scene.points));
  return "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>" + escaped(title) +
         " - " + std::to_string(scene.points.size(0)) + " points</title>" + kStyle + kBody +
         "<script>\nconst data=" + in_script(data) + ";" + kScript + "</script></html>\n";
}

}  // namespace serpentine
