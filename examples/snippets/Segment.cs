// The boxes and masks of a photo, in one request: dotnet run -- PHOTO [FOLDER]. .NET 8, no packages.
// SCORING_URL is the service's address or a route of the pipeline; SCORING_KEY is an endpoint's key, where it has one.
using System;
using System.IO;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Threading.Tasks;

public static class Segment
{
    private static readonly HttpClient Http = new HttpClient { Timeout = TimeSpan.FromMinutes(10) };

    public static async Task<int> Main(string[] args)
    {
        if (args.Length < 1)
        {
            Console.Error.WriteLine("usage: dotnet run -- PHOTO [FOLDER]");
            return 2;
        }
        string folder = args.Length > 1 ? args[1] : "masks";
        var address = new Uri(Environment.GetEnvironmentVariable("SCORING_URL") ?? "http://localhost:5001");
        var route = address.AbsolutePath == "/" ? new Uri(address, "/pipeline/score") : address;
        var key = Environment.GetEnvironmentVariable("SCORING_KEY");
        if (!string.IsNullOrEmpty(key))
        {
            Http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", key);
        }
        try
        {
            string image = Convert.ToBase64String(File.ReadAllBytes(args[0]));
            using (JsonDocument answer = JsonDocument.Parse(await Ask(route, image)))
            {
                Save(answer.RootElement[0].GetProperty("boxes"), folder);
            }
            return 0;
        }
        catch (Exception error) when (error is HttpRequestException || error is IOException || error is TaskCanceledException)
        {
            Console.Error.WriteLine(error.Message);
            return 1;
        }
    }

    /// <summary>What the route answers to one image. Comes again after 429, when Retry-After says so.</summary>
    private static async Task<string> Ask(Uri route, string image, int tries = 5)
    {
        string request = JsonSerializer.Serialize(new
        {
            input_data = new { columns = new[] { "image" }, index = new[] { 0 }, data = new[] { new[] { image } } },
            @params = new { score_threshold = 0.3 },
        });
        while (true)
        {
            using (var content = new StringContent(request, Encoding.UTF8, "application/json"))
            using (HttpResponseMessage answer = await Http.PostAsync(route, content))
            {
                string text = await answer.Content.ReadAsStringAsync();
                if (answer.IsSuccessStatusCode)
                {
                    return text;
                }
                tries -= 1;
                if ((int)answer.StatusCode != 429 || tries == 0)
                {
                    throw new HttpRequestException((int)answer.StatusCode + ": " + text);
                }
                await Task.Delay(answer.Headers.RetryAfter?.Delta ?? TimeSpan.FromSeconds(1));
            }
        }
    }

    /// <summary>Writes the mask of every object: a PNG of the photo's size, 255 the object and 0 not.</summary>
    private static void Save(JsonElement boxes, string folder)
    {
        Directory.CreateDirectory(folder);
        int number = 0;
        foreach (JsonElement found in boxes.EnumerateArray())
        {
            if (!found.TryGetProperty("mask_per_prediction", out JsonElement masks))
            {
                throw new IOException("the answer's boxes have no masks: this is no route of the pipeline");
            }
            string file = Path.Combine(folder, "mask-" + number + ".png");
            File.WriteAllBytes(file, masks[0].GetProperty("encoded_binary_mask").GetBytesFromBase64());
            Console.WriteLine(file + "  " + found.GetProperty("label").GetString() + "  " + found.GetProperty("score"));
            number += 1;
        }
    }
}
