import DeviceProfile
import DeviceProfileFile
import Testing

struct DeviceProfileFileTests {
    @Test func changesSomeFiguresOfAKnownDevice() throws {
        let profiles = try DeviceProfileFile.parse(
            """
            devices:
              - name: H100 SXM
                power: 500
                prefill-efficiency: 0.6
                source: our own measurement
              - name: rented
                base: A100-80GB
                aliases: [Cloud A100]
                price-per-hour: 1.1
                memory-bandwidth: 1.9T
            """)
        let h100 = try #require(profiles.first { $0.name == "H100 SXM" })
        #expect(h100.powerWatts == Figure(500, "our own measurement"))
        #expect(h100.efficiency.computeShare.value == 0.6)
        #expect(h100.memoryBytes == DeviceProfile.h100.memoryBytes)
        #expect(h100.aliases == DeviceProfile.h100.aliases)
        let rented = try #require(DeviceProfile.matching("Cloud A100", in: profiles))
        #expect(rented.name == "rented")
        #expect(rented.memoryBytesPerSecond.value == 1.9e12)
        #expect(rented.pricePerHour?.value == 1.1)
        #expect(rented.compute == DeviceProfile.a100.compute)
        #expect(profiles.count == DeviceProfile.catalogue.count + 1)
    }

    @Test func describesANewDevice() throws {
        let profiles = try DeviceProfileFile.parse(
            """
            devices:
              - name: Card 7
                kind: npu
                compute: {float16: 200T, int8: 400e12}
                memory-bytes: 32Gi
                memory-bandwidth: 800G
            """)
        let card = try #require(profiles.first)
        #expect(card.kind == .npu)
        #expect(card.compute[.int8]?.value == 400e12)
        #expect(card.memoryBytes.value == 34_359_738_368)
        let model = Roofline(profile: card, shape: .llama3_8B)
        #expect(model.prefillSeconds([0..<512]).isFinite)
    }

    @Test(arguments: [
        ("devices: 3", "line 1, devices: '3' is no list"),
        ("device: []", "did you mean 'devices'?"),
        ("devices:\n - power: 3", "'name' is missing"),
        ("devices:\n - name: x\n   powr: 3", "did you mean 'power'?"),
        ("devices:\n - name: x\n   base: H900", "base 'H900' is not in the catalogue"),
        ("devices:\n - name: x\n   kind: gpu", "memory-bytes and memory-bandwidth"),
        ("devices:\n - name: H200\n   power: -3", "line 3, devices[0].power: '-3'"),
        ("devices:\n - name: H200\n   prefill-efficiency: 2", "a part above 0, at most 1"),
        ("devices:\n - name: H200\n   compute: {float17: 2}", "did you mean 'float1"),
        ("devices:\n - name: H200\n   kind: tpu", "write cpu, gpu or npu"),
        ("devices:\n - name: H200\n   memory-bytes: 3 B", "a number above 0"),
        ("devices: [\n", "line"),
    ])
    func saysWhatIsWrong(text: String, problem: String) {
        do throws(DeviceProfileFile.Failure) {
            _ = try DeviceProfileFile.parse(text)
            Issue.record("'\(text)' was taken")
        } catch {
            let told = error.problems.joined(separator: "\n")
            #expect(told.contains(problem), "\(told)")
        }
    }

    @Test func anEmptyFileIsTheCatalogue() throws {
        #expect(try DeviceProfileFile.parse("") == DeviceProfile.catalogue)
        do throws(DeviceProfileFile.Failure) {
            _ = try DeviceProfileFile.read(path: "/does/not/exist")
            Issue.record("a file that is not there was read")
        } catch {
            #expect(error.problems == ["'/does/not/exist' can't be read as UTF-8 text"])
        }
    }
}
