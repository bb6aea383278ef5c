// A DICOM-SEG file through DCMTK; what it shows is chosen in dicom_seg.cpp.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmfg/fgderimg.h>
#include <dcmtk/dcmfg/fgfracon.h>
#include <dcmtk/dcmfg/fgpixmsr.h>
#include <dcmtk/dcmfg/fgplanor.h>
#include <dcmtk/dcmfg/fgplanpo.h>
#include <dcmtk/dcmiod/cielabutil.h>
#include <dcmtk/dcmiod/iodreferences.h>
#include <dcmtk/dcmseg/segdoc.h>
#include <dcmtk/dcmseg/segment.h>

#include "segmentation/file_error.h"
#include "segmentation/seg_file.h"

namespace serpentine {
namespace {

/// DCMTK writes to the terminal otherwise; what goes wrong is said by the exceptions here.
void quiet_dcmtk() {
  static std::once_flag once;
  std::call_once(once, [] { OFLog::configure(OFLogger::OFF_LOG_LEVEL); });
}

void check_dcmtk(const std::string& file, const OFCondition& condition) {
  if (condition.bad())
    fail_file(file, std::string("cannot be made as a DICOM-SEG: ") + condition.text());
}

/// The values of an element as they stand in the file.
struct Words {
  OFString x, y, z;
};

/// What the frames of a slice share.
struct SegSource {
  Words position;
  std::unique_ptr<FGDerivationImage> derivation;
};

std::unique_ptr<DcmFileFormat> header_of(const std::string& source) {
  auto file = std::make_unique<DcmFileFormat>();
  const auto condition = file->loadFileUntilTag(source.c_str(), EXS_Unknown, EGL_noChange,
                                                DCM_MaxReadLength, ERM_autoDetect, DCM_PixelData);
  if (condition.bad())
    fail_file(source, std::string("cannot be read by DCMTK: ") + condition.text());
  return file;
}

OFString word(DcmItem& item, const DcmTagKey& key, unsigned long at = 0) {
  OFString value;
  item.findAndGetOFString(key, value, at);
  return value;
}

/// A number in the 16 characters that DICOM allows.
OFString decimal(double value) {
  char text[32];
  for (int digits = 15; digits > 0; --digits)
    if (std::snprintf(text, sizeof text, "%.*g", digits, value) <= 16) break;
  return text;
}

/// At most 64 characters of ASCII: the text of a series may be in any set of characters.
OFString plain_name(std::string name) {
  name.resize(std::min<size_t>(name.size(), 64));
  for (char& c : name)
    if (c < ' ' || c > '~' || c == '\\') c = '_';
  return name.empty() ? "unnamed" : name.c_str();
}

void add_segments(const std::string& file, const SegContents& contents, DcmSegmentation& seg) {
  // of what tissue a class is, nobody said; its name tells
  const CodeSequenceMacro tissue("85756007", "SCT", "Tissue");
  for (const auto& wanted : contents.segments) {
    DcmSegment* made = nullptr;
    check_dcmtk(file, DcmSegment::create(made, plain_name(wanted.name), tissue, tissue,
                                         DcmSegTypes::SAT_AUTOMATIC, "Serpentine"));
    double l = 0, a = 0, b = 0;
    IODCIELabUtil::rgb2DicomLab(l, a, b, wanted.colour[0] / 255., wanted.colour[1] / 255.,
                                wanted.colour[2] / 255.);
    const auto part = [](double value) { return static_cast<Uint16>(value + 0.5); };
    made->setRecommendedDisplayCIELabValue(part(l), part(a), part(b));
    Uint16 number = 0;
    check_dcmtk(file, seg.addSegment(made, number));
  }
}

/// Pixel size and direction, of all frames.
void add_grid(const std::string& file, const SegContents& contents, DcmItem& source,
              DcmSegmentation& seg) {
  FGPixelMeasures measures;
  measures.setPixelSpacing(
      word(source, DCM_PixelSpacing) + "\\" + word(source, DCM_PixelSpacing, 1), OFFalse);
  OFString thickness = word(source, DCM_SliceThickness);
  if (thickness.empty()) thickness = decimal(contents.between > 0 ? contents.between : 1);
  measures.setSliceThickness(thickness, OFFalse);
  if (contents.between > 0) measures.setSpacingBetweenSlices(decimal(contents.between), OFFalse);
  check_dcmtk(file, seg.addForAllFrames(measures));
  FGPlaneOrientationPatient direction;
  OFString axis[6];
  for (unsigned long i = 0; i < 6; ++i) axis[i] = word(source, DCM_ImageOrientationPatient, i);
  direction.setImageOrientationPatient(axis[0], axis[1], axis[2], axis[3], axis[4], axis[5],
                                       OFFalse);
  check_dcmtk(file, seg.addForAllFrames(direction));
}

/// Frames are told by their segment, then by their place.
void add_dimensions(const std::string& file, DcmSegmentation& seg) {
  char uid[100];
  dcmGenerateUniqueIdentifier(uid, SITE_INSTANCE_UID_ROOT);
  auto& dimensions = seg.getDimensions();
  check_dcmtk(file, dimensions.addDimensionIndex(DCM_ReferencedSegmentNumber, uid,
                                                 DCM_SegmentIdentificationSequence, "Segment"));
  check_dcmtk(file, dimensions.addDimensionIndex(DCM_ImagePositionPatient, uid,
                                                 DCM_PlanePositionSequence, "Position"));
}

/// What an object must take over from its images: PS3.3 A.51, type 1.
void check_identified(const std::string& source, DcmItem& item) {
  for (const auto& [key, name] : {std::pair{DCM_StudyInstanceUID, "StudyInstanceUID"},
                                  {DCM_FrameOfReferenceUID, "FrameOfReferenceUID"},
                                  {DCM_SOPClassUID, "SOPClassUID"},
                                  {DCM_SOPInstanceUID, "SOPInstanceUID"}}) {
    if (word(item, key).empty())
      fail_file(source, std::string("has no ") + name + ", which a DICOM-SEG refers to");
  }
}

/// Reads the slices' headers: where each lies, and a reference to it.
std::vector<SegSource> read_sources(const std::string& file, const SegContents& contents,
                                    DcmSegmentation& seg) {
  std::vector<SegSource> sources;
  IODReferences references;
  OFString study;
  for (const auto& name : contents.sources) {
    const auto header = header_of(name);
    auto& item = *header->getDataset();
    check_identified(name, item);
    if (sources.empty()) {
      check_dcmtk(name, seg.importFromSourceImage(item));
      add_grid(file, contents, item, seg);
      study = word(item, DCM_StudyInstanceUID);
    }
    ImageSOPInstanceReferenceMacro* reference = nullptr;
    check_dcmtk(name, ImageSOPInstanceReferenceMacro::create(
                          word(item, DCM_SOPClassUID), word(item, DCM_SOPInstanceUID), reference));
    OFVector<ImageSOPInstanceReferenceMacro> one;
    one.push_back(*reference);
    delete reference;
    SegSource source;
    source.position = {word(item, DCM_ImagePositionPatient),
                       word(item, DCM_ImagePositionPatient, 1),
                       word(item, DCM_ImagePositionPatient, 2)};
    source.derivation.reset(DcmSegmentation::createDerivationImageFG(one, "Segmentation"));
    if (!source.derivation) fail_file(name, "cannot be referred to");
    auto listed = std::make_unique<IODImageReference>(IODReference::LEVEL_STUDY);
    if (listed->readFromItem(item)) references.add(listed.release());
    sources.push_back(std::move(source));
  }
  seg.getCommonInstanceReference().addReferences(references, study);
  return sources;
}

void add_frames(const std::string& file, const SegContents& contents,
                const std::vector<SegSource>& sources, DcmSegmentation& seg) {
  std::vector<Uint8> pixels(static_cast<size_t>(contents.rows * contents.columns));
  const auto add = [&](size_t segment, size_t slice) {
    FGFrameContent content;
    content.setStackID("1");
    content.setInStackPositionNumber(static_cast<Uint32>(slice + 1));
    content.setDimensionIndexValues(static_cast<Uint32>(segment + 1), 0);
    content.setDimensionIndexValues(static_cast<Uint32>(slice + 1), 1);
    const auto& [x, y, z] = sources[slice].position;
    FGPlanePosPatient position;
    position.setImagePositionPatient(x, y, z, OFFalse);
    OFVector<FGBase*> groups;
    groups.push_back(&content);
    groups.push_back(&position);
    groups.push_back(sources[slice].derivation.get());
    check_dcmtk(file, seg.addFrame(pixels.data(), static_cast<Uint16>(segment + 1), groups));
  };
  for (size_t segment = 0; segment < contents.segments.size(); ++segment) {
    for (size_t slice = 0; slice < sources.size(); ++slice)
      if (contents.frame(segment, slice, pixels.data())) add(segment, slice);
  }
  if (seg.getNumberOfFrames() > 0) return;
  std::fill(pixels.begin(), pixels.end(), Uint8{0});  // an image has a frame at least
  add(0, 0);
}

/// The items of a sequence, none where there is none.
std::vector<DcmItem*> items_of(DcmItem& of, const DcmTagKey& key) {
  std::vector<DcmItem*> items;
  DcmSequenceOfItems* sequence = nullptr;
  if (of.findAndGetSequence(key, sequence).bad()) return items;
  for (DcmObject* next = nullptr; (next = sequence->nextInContainer(next)) != nullptr;)
    items.push_back(static_cast<DcmItem*>(next));
  return items;
}

/// Says that a pixel of a frame lies on the pixel of its slice, for which DCMTK has no setter.
void say_pixels_match(const std::string& file, DcmItem& data) {
  for (auto* frame : items_of(data, DCM_PerFrameFunctionalGroupsSequence))
    for (auto* derivation : items_of(*frame, DCM_DerivationImageSequence))
      for (auto* source : items_of(*derivation, DCM_SourceImageSequence))
        check_dcmtk(file, source->putAndInsertString(DCM_SpatialLocationsPreserved, "YES"));
}

}  // namespace

bool dicom_seg_available() { return true; }
void check_dicom_seg() {}

void write_seg_file(const std::string& file, const SegContents& contents) {
  quiet_dcmtk();
  const IODGeneralEquipmentModule::EquipmentInfo maker("Serpentine", "Serpentine", "0",
                                                       SERPENTINE_VERSION);
  const ContentIdentificationMacro content("1", "SEGMENTATION", "Labels by Serpentine",
                                           "Serpentine^");
  DcmSegmentation* made = nullptr;
  check_dcmtk(file, DcmSegmentation::createBinarySegmentation(
                        made, static_cast<Uint16>(contents.rows),
                        static_cast<Uint16>(contents.columns), maker, content));
  const std::unique_ptr<DcmSegmentation> seg(made);
  seg->getSeries().setSeriesDescription("Segmentation by Serpentine");
  seg->getSeries().setSeriesNumber("1000");
  add_segments(file, contents, *seg);
  add_dimensions(file, *seg);
  add_frames(file, contents, read_sources(file, contents, *seg), *seg);
  DcmFileFormat written;
  check_dcmtk(file, seg->writeDataset(*written.getDataset()));
  say_pixels_match(file, *written.getDataset());
  const std::string partial = file + ".partial";
  check_dcmtk(file, written.saveFile(partial.c_str(), EXS_LittleEndianExplicit));
  std::filesystem::rename(partial, file);
}

}  // namespace serpentine
