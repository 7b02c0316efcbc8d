from lakehouse_utils.sample_data.sample_data import main

if __name__ == "__main__":
    main()
