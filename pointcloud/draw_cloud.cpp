#include "pointcloud/draw_cloud.h"

#include <array>

#include <ATen/ATen.h>

#include "core/check.h"
#include "pointcloud/cloud_source.h"

namespace serpentine {
namespace {

constexpr const char* kDrawCloudWho = "cloud page";

// Tableau's ten colours and their lighter sisters
constexpr std::array<uint32_t, 20> kColours = {0x4E79A7, 0xF28E2B, 0xE15759, 0x76B7B2, 0x59A14F,
                                               0xEDC948, 0xB07AA1, 0xFF9DA7, 0x9C755F, 0xBAB0AC,
                                               0xA0CBE8, 0xFFBE7D, 0xFF9D9A, 0x86BCB6, 0x8CD17D,
                                               0xF1CE63, 0xD4A6C8, 0xFABFD2, 0xD7B5A6, 0x79706E};

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
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

constexpr const char* kStyle = R"(<style>
body{margin:0;background:#111;color:#ddd;font:14px sans-serif;overflow:hidden}
#bar{position:fixed;left:8px;top:8px}button{margin-right:4px}canvas{display:block;cursor:grab}
</style>)";

constexpr const char* kScript = R"(
const bytes=t=>Uint8Array.from(atob(t),c=>c.charCodeAt(0));
const P=new Float32Array(bytes(data.points).buffer),n=P.length/3;
const L=data.layers.map(l=>bytes(l)),W=data.walk?new Int32Array(bytes(data.walk).buffer):null;
const canvas=document.querySelector('canvas'),ink=canvas.getContext('2d');
let yaw=0.6,pitch=-1.1,zoom=1,layer=0,line=false,from=null;
function draw(){
  const w=canvas.width=innerWidth,h=canvas.height=innerHeight,s=Math.min(w,h)*0.42*zoom;
  const cy=Math.cos(yaw),sy=Math.sin(yaw),cp=Math.cos(pitch),sp=Math.sin(pitch);
  const image=ink.createImageData(w,h),depth=new Float32Array(w*h).fill(-1e9);
  const pixels=image.data,X=new Float32Array(n),Y=new Float32Array(n),C=L[layer];
  const size=n<5e4?2:1;
  for(let i=0;i<n;i++){
    const x=P[3*i]*cy-P[3*i+1]*sy,y=P[3*i]*sy+P[3*i+1]*cy,z=P[3*i+2];
    const v=y*cp-z*sp,d=y*sp+z*cp;
    X[i]=w/2+s*x;Y[i]=h/2-s*v;
    for(let a=0;a<size;a++)for(let b=0;b<size;b++){
      const px=(X[i]+a)|0,py=(Y[i]+b)|0;
      if(px<0||py<0||px>=w||py>=h)continue;
      const k=py*w+px;
      if(d<=depth[k])continue;
      depth[k]=d;const f=Math.min(1,Math.max(0.45,0.75+0.3*d));
      pixels[4*k]=C[3*i]*f;pixels[4*k+1]=C[3*i+1]*f;pixels[4*k+2]=C[3*i+2]*f;pixels[4*k+3]=255;
    }
  }
  ink.putImageData(image,0,0);
  if(line&&W)for(let i=1;i<W.length;i++){
    ink.strokeStyle='hsl('+300*i/W.length+' 90% 60%)';ink.beginPath();
    ink.moveTo(X[W[i-1]],Y[W[i-1]]);ink.lineTo(X[W[i]],Y[W[i]]);ink.stroke();
  }
  document.title=data.title+' - '+n+' points';document.body.dataset.drawn=n;
}
const bar=document.getElementById('bar');
function button(text,act){const b=document.createElement('button');b.textContent=text;
  b.onclick=()=>{act();draw()};bar.appendChild(b)}
data.titles.forEach((t,i)=>button(t,()=>{layer=i}));
if(W)button('traversal',()=>{line=!line});
canvas.onpointerdown=e=>{from=[e.clientX,e.clientY];canvas.setPointerCapture(e.pointerId)};
canvas.onpointerup=()=>{from=null};
canvas.onpointermove=e=>{if(!from)return;yaw+=(e.clientX-from[0])/200;
  pitch+=(e.clientY-from[1])/200;from=[e.clientX,e.clientY];draw()};
canvas.onwheel=e=>{e.preventDefault();zoom*=Math.exp(-e.deltaY/800);draw()};
onresize=draw;draw();
)";

std::string quoted(const std::string& text) { return "\"" + escaped(text) + "\""; }

}  // namespace

at::Tensor class_colours(const at::Tensor& classes) {
  const auto count = static_cast<int64_t>(kColours.size());
  const at::Tensor table = at::empty({count, 3}, at::kByte);
  auto* to = table.mutable_data_ptr<uint8_t>();
  for (const uint32_t colour : kColours) {
    for (const unsigned shift : {16U, 8U, 0U}) *to++ = static_cast<uint8_t>(colour >> shift & 255U);
  }
  return table.index_select(0, classes.to(at::kCPU, at::kLong).remainder(count));
}

PointCloud coloured(const PointCloud& cloud, const at::Tensor& colours) {
  check_shape("colours", colours, "colours", {cloud.size(), 3}, "N, 3");
  PointCloud out = cloud;
  constexpr std::array<const char*, 3> kNames = {"red", "green", "blue"};
  for (int64_t i = 0; i < 3; ++i)
    out.set(kNames[i], colours.select(1, i).to(at::kByte).contiguous(), NumberType::kU8);
  return out;
}

std::string cloud_page(const std::string& title, const at::Tensor& points,
                       const std::vector<CloudLayer>& layers, const at::Tensor& walk) {
  check_shape(kDrawCloudWho, points, "points", {-1, 3}, "N, 3");
  SERPENTINE_CHECK(points.size(0) > 0 && !layers.empty(), kDrawCloudWho,
                   "there must be a point and a layer of colours");
  std::string titles, colours;
  for (const auto& layer : layers) {
    check_shape(kDrawCloudWho, layer.colours, "colours", {points.size(0), 3}, "N, 3");
    titles += (titles.empty() ? "" : ",") + quoted(layer.title);
    colours +=
        (colours.empty() ? "\"" : ",\"") + base64(layer.colours.to(at::kCPU, at::kByte)) + "\"";
  }
  std::string page = "<!doctype html><meta charset=\"utf-8\"><title>" + escaped(title) + "</title>";
  page += std::string(kStyle) +
          "<canvas></canvas><div id=\"bar\"></div><script>\nconst data={title:" + quoted(title) +
          ",titles:[" + titles + "],layers:[" + colours + "],points:\"" +
          base64(in_unit_sphere(points.to(at::kCPU))) + "\",walk:";
  page += walk.defined() ? "\"" + base64(walk.to(at::kCPU, at::kInt)) + "\"" : "null";
  return page + "};" + kScript + "</script>\n";
}

}  // namespace serpentine
