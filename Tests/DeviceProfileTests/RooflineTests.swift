import DeviceProfile
import Testing

struct RooflineTests {
    @Test func shapesHaveTheKnownSizes() {
        let sizes: [(ModelShape, Double, Int)] = [
            (.llama3_8B, 8.03e9, 131_072), (.llama3_70B, 70.55e9, 327_680),
            (.llama2_70B, 68.98e9, 327_680), (.bloom176B, 176.2e9, 4_014_080),
            (.qwen2_5_0_5B, 0.494e9, 12_288), (.qwen2_5_7B, 7.61e9, 57_344),
            (.qwen2_5_72B, 72.7e9, 327_680),
        ]
        for (shape, parameters, kvBytes) in sizes {
            #expect(abs(Double(shape.parameters) / parameters - 1) < 0.005, "\(shape.name)")
            #expect(shape.kvBytesPerToken(.float16) == kvBytes, "\(shape.name)")
        }
    }

    @Test func predictsWhatWasMeasuredOnSparkAndMac() {
        // EXO's figures for Llama-3.1-8B in 16 bits: 8192 tokens of prompt, then 32 more.
        for (profile, prefill, decode) in [
            (DeviceProfile.gb10, 1.47, 2.87), (.m3Ultra, 5.57, 0.85),
        ] {
            let model = Roofline(profile: profile, shape: .llama3_8B)
            #expect(abs(model.promptSeconds(8192, chunk: 8192) / prefill - 1) < 0.1)
            let step = model.decodeSeconds(sequences: 1, contextTokens: 8208)
            #expect(abs(step * 32 / decode - 1) < 0.1)
        }
    }

    @Test func moreWorkTakesLonger() {
        let model = Roofline(profile: .h100, deviceCount: 8, shape: .llama2_70B)
        #expect(model.prefillSeconds([0..<2048]) > model.prefillSeconds([0..<1024]))
        #expect(model.prefillSeconds([6144..<8192]) > model.prefillSeconds([0..<2048]))
        #expect(
            model.decodeSeconds(sequences: 8, contextTokens: 400_000)
                > model.decodeSeconds(sequences: 8, contextTokens: 4000))
        let alone = model.decodeSeconds(sequences: 8, contextTokens: 4000)
        #expect(model.mixedSeconds([0..<2048], sequences: 8, contextTokens: 4000) > alone)
        #expect(model.mixedSeconds([], sequences: 0, contextTokens: 0) == 0)
    }

    @Test func capacityIsWhatTheWeightsLeave() {
        #expect(Roofline(profile: .h100, shape: .llama2_70B).kvCapacityTokens == 0)
        let eight = Roofline(profile: .h100, deviceCount: 8, shape: .llama2_70B)
        // 8 x 72 GB less 138 GB, at 327,680 bytes a token.
        #expect(abs(Double(eight.kvCapacityTokens) / 1_336_000 - 1) < 0.01)
    }

    @Test func cappedPowerSlowsPrefillOnly() {
        let full = Roofline(profile: .h100, deviceCount: 8, shape: .llama2_70B)
        let capped = Roofline(profile: .h100Capped, deviceCount: 8, shape: .llama2_70B)
        #expect(capped.prefillSeconds([0..<2048]) > 1.2 * full.prefillSeconds([0..<2048]))
        #expect(
            capped.decodeSeconds(sequences: 4, contextTokens: 4096)
                == full.decodeSeconds(sequences: 4, contextTokens: 4096))
    }

    @Test func everyFigureHasASourceAndASensibleValue() {
        for profile in DeviceProfile.catalogue {
            for (name, _, figure) in profile.figures {
                #expect(figure.source.count > 5, "\(profile.name) \(name)")
                #expect(figure.value > 0 && figure.value.isFinite, "\(profile.name) \(name)")
            }
            for share in [profile.efficiency.computeShare, profile.efficiency.bandwidthShare] {
                #expect(share.value <= 1, "\(profile.name)")
            }
            #expect(profile.compute(for: .q4_0) != nil, "\(profile.name)")
        }
        #expect(Set(DeviceProfile.catalogue.map(\.name)).count == DeviceProfile.catalogue.count)
    }

    @Test func devicesAreFoundByTheirDriversNames() {
        let names = [
            "NVIDIA H100 80GB HBM3": "H100 SXM", "NVIDIA A100-SXM4-80GB": "A100-80GB",
            "NVIDIA GeForce RTX 4090": "RTX 4090", "Apple M3 Ultra": "M3 Ultra",
            "Ascend910B3": "Ascend 910B", "AMD EPYC 9654 96-Core Processor": "EPYC 9654",
            "Intel(R) Xeon(R) Platinum 8480+": "Xeon Platinum 8480+", "NVIDIA GB10": "GB10",
            "NVIDIA H200": "H200", "AMD Instinct MI300X": "MI300X",
        ]
        for (text, name) in names {
            #expect(DeviceProfile.matching(text)?.name == name, "\(text)")
        }
        #expect(DeviceProfile.matching("Intel(R) Xeon(R) Processor @ 2.50GHz") == nil)
        #expect(DeviceProfile.matching("NVIDIA H1000") == nil)
        #expect(DeviceProfile.matching("NVIDIA H100 80GB HBM3", kind: .npu) == nil)
    }
}
